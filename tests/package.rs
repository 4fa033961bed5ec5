//! The packages, the image and the release are what the rest of the project says. Fast: nothing is built; `scripts/package` builds and
//! tries them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn file(path: &str) -> String {
    std::fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names in a folder, sorted.
fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(at(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What a command of bash prints, in the project's folder.
fn bash(script: &str) -> String {
    let ran = Command::new("bash").args(["-c", script]).current_dir(at("")).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
}

/// One entry under `contents:` of nfpm.yaml.
#[derive(Debug)]
struct Packed {
    src: String,
    dst: String,
    kind: String,
    mode: String,
}

fn packed() -> Vec<Packed> {
    let yaml = file("deploy/packages/nfpm.yaml");
    let contents = yaml.split("\ncontents:\n").nth(1).unwrap().split("\nscripts:\n").next().unwrap();
    let entry = |text: &str| {
        let of = |key: &str| {
            let lines = text.lines().map(str::trim);
            lines.filter_map(|line| line.strip_prefix(key)).next().unwrap_or_default().trim().to_owned()
        };
        let mode = of("file_info: { mode: ").trim_end_matches([' ', '}']).to_owned();
        Packed { src: of("src: "), dst: of("dst: "), kind: of("type: "), mode }
    };
    // The first piece is what stands before the first entry.
    contents.split("  - ").skip(1).map(entry).collect()
}

/// Lines of the Containerfile that begin with this word, continued lines joined.
fn instructions(word: &str) -> Vec<String> {
    let text = file("deploy/container/Containerfile").replace("\\\n", " ");
    let found = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    found.map(|rest| rest.trim().to_owned()).collect()
}

#[test]
fn every_unit_is_in_the_packages_and_starts_what_is_in_them() {
    let is_unit = |name: &String| [".service", ".timer"].iter().any(|ending| name.ends_with(ending));
    let units: Vec<String> = names("deploy/systemd").into_iter().filter(is_unit).collect();
    assert!(units.len() >= 3, "{units:?}");
    let packed = packed();
    for unit in &units {
        let entry = packed.iter().find(|entry| entry.src == format!("systemd/{unit}"));
        let entry = entry.unwrap_or_else(|| panic!("{unit} is not in nfpm.yaml"));
        assert_eq!(entry.dst, format!("/usr/lib/systemd/system/{unit}"));
        assert_eq!(entry.mode, "0644", "{unit}");
        for line in file(&format!("deploy/systemd/{unit}")).lines().filter(|line| line.starts_with("ExecStart=")) {
            let command: Vec<&str> = line.trim_start_matches("ExecStart=").split(' ').collect();
            let paths: Vec<&&str> = command.iter().filter(|word| word.starts_with('/')).collect();
            assert_eq!(paths, [&"/usr/bin/opship", &"/etc/opship/config.toml"], "{unit}");
            assert!(paths.iter().all(|path| packed.iter().any(|entry| entry.dst == ***path)), "{unit}: {line}");
        }
    }
    let gone =
        packed.iter().filter(|entry| entry.src.starts_with("systemd/") && !at("deploy").join(&entry.src).exists());
    assert_eq!(gone.map(|entry| &entry.src).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_configuration_is_kept_over_upgrades_and_the_units_may_read_it() {
    let kept: Vec<Packed> = packed().into_iter().filter(|entry| entry.kind.starts_with("config")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!((kept[0].dst.as_str(), kept[0].kind.as_str()), ("/etc/opship/config.toml", "config|noreplace"));
    // The units run as a user that systemd makes up.
    assert_eq!(kept[0].mode, "0644");
    let elsewhere = packed().into_iter().filter(|entry| entry.dst.starts_with("/etc/") && entry.kind != "dir");
    assert_eq!(elsewhere.count(), 1, "whatever is below /etc must be a configuration file");
}

#[test]
fn no_script_of_the_packages_starts_or_enables_anything() {
    let yaml = file("deploy/packages/nfpm.yaml");
    for name in ["installed", "removing", "removed"] {
        assert!(yaml.contains(&format!(": scripts/{name}\n")), "{name}");
        let path = format!("deploy/packages/{name}");
        bash(&format!("test -x {path} && sh -n {path}"));
        for line in file(&path).lines().map(str::trim).filter(|line| line.starts_with("systemctl ")) {
            let words: BTreeSet<&str> = line.split(' ').collect();
            assert!(
                ["start", "restart", "enable", "preset"].iter().all(|word| !words.contains(word)),
                "{name}: {line}"
            );
        }
        assert!(
            !file(&path).lines().any(|line| line.contains("rm ") && line.contains("/var")),
            "{name} takes the position"
        );
    }
}

#[test]
fn the_version_is_that_of_the_manifest() {
    assert!(file("deploy/packages/nfpm.yaml").contains("\nversion: ${OPSHIP_VERSION}\n"));
    assert!(instructions("LABEL")[0].contains(r#"org.opencontainers.image.version="${VERSION}""#));
    let named = bash("source scripts/packaging/names; echo $OPSHIP_VERSION; basename -a $deb $rpm $oci $sbom");
    let (version, files) = named.split_once('\n').unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(files.lines().count() == 4 && files.lines().all(|name| name.contains(version)), "{files}");
    assert!(file("CHANGELOG.md").contains(&format!("\n## [{version}]")));
}

#[test]
fn the_image_is_the_program_alone_and_runs_as_no_user_of_any_system() {
    assert_eq!(instructions("FROM"), ["scratch"]);
    assert_eq!(instructions("USER"), ["65532:65532"]);
    assert_eq!(instructions("ENTRYPOINT"), [r#"["/opship"]"#]);
    assert_eq!(instructions("CMD"), [r#"["run"]"#]);
    assert_eq!(instructions("COPY"), ["root /", "--chown=65532:65532 state /var/lib/opship"]);
    assert!(instructions("ADD").is_empty() && instructions("RUN").is_empty());
}

/// `ghcr.io/OWNER/NAME`, where the workflow publishes the image of the repository that the label names.
fn image() -> String {
    let label = instructions("LABEL").remove(0);
    let source = label.split("org.opencontainers.image.source=\"https://github.com/").nth(1).unwrap();
    assert!(file(".github/workflows/release.yml").contains("IMAGE: ghcr.io/${{ github.repository }}\n"));
    format!("ghcr.io/{}", source.split('"').next().unwrap())
}

#[test]
fn documents_and_templates_name_the_image_that_is_published() {
    let wanted = format!("{}:{}", image(), env!("CARGO_PKG_VERSION"));
    assert!(file("docs/packages.md").contains(&wanted), "{wanted}");
    // The templates hand arguments to the entry point.
    let Ok(template) = std::fs::read_to_string(at("deploy/arm/azuredeploy.json")) else { return };
    let template: serde_json::Value = serde_json::from_str(&template).unwrap();
    assert_eq!(template["parameters"]["image"]["defaultValue"], wanted.as_str());
    let text = template.to_string();
    let commands: Vec<&str> = text.split(r#""args":[""#).skip(1).filter_map(|args| args.split('"').next()).collect();
    assert_eq!(commands, ["run", "once", "check"]);
    assert!(!text.contains(r#""command":"#), "the entry point is the image's");
}

#[test]
fn every_action_is_pinned_by_digest() {
    let workflows = names(".github/workflows");
    assert!(workflows.contains(&"release.yml".to_owned()));
    for name in workflows {
        let text = file(&format!(".github/workflows/{name}"));
        let uses: Vec<&str> =
            text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: ")).collect();
        assert!(!uses.is_empty(), "{name}");
        // A workflow of this repository is of this very commit.
        for action in uses.into_iter().filter(|action| !action.starts_with("./")) {
            let (_, pin) = action.split_once('@').unwrap_or_else(|| panic!("{name}: {action}"));
            let (digest, version) = pin.split_once(" # v").unwrap_or_else(|| panic!("{name}: {action} has no version"));
            assert!(digest.len() == 40 && digest.bytes().all(|c| c.is_ascii_hexdigit()), "{name}: {action}");
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name}: {action}");
        }
        assert!(text.contains("\npermissions:\n  contents: read\n"), "{name}: no rights but those that a job asks for");
        assert!(!text.contains("${{ github.event."), "{name}: what others write never becomes part of a script");
    }
}

#[test]
fn what_goes_into_the_packages_is_pinned_by_digest() {
    let text = file("scripts/packaging/requirements.txt");
    let pins: Vec<String> =
        text.replace("\\\n", " ").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(pins.len(), 2, "{pins:?}");
    for pin in pins {
        assert!(pin.contains("==") && pin.contains("--hash=sha256:"), "{pin}");
    }
}

#[test]
fn scripts_can_be_run_and_are_whole() {
    for name in names("scripts/packaging") {
        let path = format!("scripts/packaging/{name}");
        if file(&path).starts_with("#!") {
            bash(&format!("test -x {path}"));
        }
        match path.rsplit_once('.') {
            Some((_, "mjs")) => bash(&format!("node --check {path}")),
            Some(_) => String::new(),
            None => bash(&format!("bash -n {path}")),
        };
    }
    let usage = bash("scripts/package help || test $? = 64");
    assert!(usage.contains("scripts/package build") && usage.contains("scripts/package try"), "{usage}");
}

#[test]
fn the_list_of_licences_names_every_crate_of_the_program() {
    let (cargo, platform) = (env!("CARGO"), "x86_64-unknown-linux-gnu");
    let tree = bash(&format!("{cargo} tree --locked --offline --edges normal --prefix none --target {platform}"));
    let name = |line: &str| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ").replacen(" v", " ", 1);
    let linked: BTreeSet<String> = tree.lines().skip(1).map(name).collect();
    assert!(linked.len() > 100);
    let folder = tempfile::tempdir().unwrap();
    let linked_file = folder.path().join("linked");
    std::fs::write(&linked_file, linked.iter().map(|name| format!("{name}\n")).collect::<String>()).unwrap();

    let metadata = format!("{cargo} metadata --locked --offline --format-version 1 --filter-platform {platform}");
    let licences = format!("node scripts/packaging/licences.mjs {}", linked_file.display());
    let list = bash(&format!("set -o pipefail; {metadata} | {licences}"));

    let listed: BTreeSet<&str> =
        list.split("\n\n").nth(1).unwrap().lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(listed, linked.iter().map(String::as_str).collect());
    assert!(list.contains("Permission is hereby granted") && list.contains("Apache License"));
    // Every crate has its text, or stands in the list of those that came without.
    let after_list = list.split_once("Also in the program").unwrap().1;
    for name in linked {
        assert!(after_list.contains(&name), "{name}: neither a text nor a word that there is none");
    }
}
