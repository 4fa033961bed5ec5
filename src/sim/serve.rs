//! `opship sim`: a simulator for other processes, until a signal ends it.

use super::{Fault, Options, Sim, SimError};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Starts a simulator, prints one JSON line with `url`, `ca_file` and `environment`, and runs until SIGTERM or SIGINT.
///
/// # Errors
/// Faults, an address or files that cannot be used.
pub async fn serve(mut options: Options, faults: Option<PathBuf>) -> Result<(), SimError> {
    if let Some(path) = faults {
        // A small file, read before anything is served.
        let json = std::fs::read(&path);
        let json = json.map_err(|source| SimError::FaultsFile { path, source })?;
        options.faults.extend(Fault::parse_list(&json)?);
    }
    // Installed first: whoever has read the line may end us at once.
    let mut terminate = signal(SignalKind::terminate()).map_err(SimError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SimError::Signal)?;
    let sim = Sim::start(options).await?;
    let ca_file = sim.ca_pem().map(write_ca_file).transpose()?;
    print_line(&line(&sim, ca_file.as_ref())).map_err(SimError::Print)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    sim.stop().await;
    if let Some(path) = ca_file {
        // A file that somebody removed before us is no reason to fail.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn line(sim: &Sim, ca_file: Option<&PathBuf>) -> Value {
    let mut environment: serde_json::Map<String, Value> =
        sim.environment().into_iter().map(|(name, value)| (name, value.into())).collect();
    if let Some(path) = ca_file {
        environment.insert("OPSHIP_HTTP__CA_FILE".into(), json!(path));
    }
    json!({ "url": sim.base_url(), "ca_file": ca_file, "environment": environment })
}

fn print_line(line: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn write_ca_file(pem: &str) -> Result<PathBuf, SimError> {
    let path = std::env::temp_dir().join(format!("opship-sim-{}-ca.pem", uuid::Uuid::new_v4()));
    // Never through a file or link that somebody put there.
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match created.and_then(|mut file| file.write_all(pem.as_bytes())) {
        Ok(()) => Ok(path),
        Err(source) => Err(SimError::CaFile { path, source }),
    }
}
