//! What this process uses, as far as Linux tells it in `/proc`.

/// Absent where it cannot be told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub cpu_seconds: Option<f64>,
    pub memory_bytes: Option<f64>,
    pub fds: Option<f64>,
    pub fds_max: Option<f64>,
}

/// Clock ticks a second in `/proc/self/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

pub(super) fn used() -> Used {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    Used {
        cpu_seconds: read("stat").and_then(|stat| cpu_seconds(&stat)),
        memory_bytes: read("status").and_then(|status| memory_bytes(&status)),
        fds: std::fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count() as f64),
        fds_max: read("limits").and_then(|limits| fds_max(&limits)),
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name in brackets may hold blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / TICKS)
}

fn memory_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn fds_max(limits: &str) -> Option<f64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        let stat = "1 (a b) c) S 0 1 1 0 -1 4194560 9 8 7 6 150 50 3 2 20 0 1 0 0 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(memory_bytes("VmPeak:\t 9 kB\nVmRSS:\t   2048 kB\n"), Some(2_097_152.0));
        assert_eq!(fds_max("Max open files            1024      4096      files\n"), Some(1024.0));
        assert_eq!((cpu_seconds("x"), memory_bytes(""), fds_max("Max open files unlimited")), (None, None, None));
        let used = used();
        assert!(used.memory_bytes.is_some_and(|bytes| bytes > 1e6) && used.fds.is_some_and(|fds| fds > 2.0));
    }
}
