//! `opship man` and `opship completions`: made from the same definitions as `--help`.

pub(super) mod help;

use super::exit::meanings_and_remedies;
use super::{Cli, CliError, Exit, print};
use crate::config::show;
use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use help::{FILES, VARIABLES, command, examples};
use serde_json::Value;
use std::path::{Path, PathBuf};

const MANUAL: &str = "opship manual";
const CONFIGURATION: &str = "opship.toml";

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write every page below this folder, into man1 and man5; without it the main page is printed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct CompletionsArgs {
    /// Print the script of this shell
    #[arg(value_name = "SHELL")]
    shell: Option<Shell>,
    /// Write the scripts of all shells into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn manual(args: &ManArgs) -> Result<Exit, CliError> {
    let pages = pages();
    let Some(dir) = &args.dir else {
        return print(pages.first().map_or("", |page| page.text.as_str()));
    };
    for page in &pages {
        write(&dir.join(format!("man{}", page.section)), &format!("{}.{}", page.name, page.section), &page.text)?;
    }
    print(&format!("{} pages below {}", pages.len(), dir.display()))
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let script = |shell: Shell| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "opship", &mut script);
        String::from_utf8_lossy(&script).into_owned()
    };
    if let Some(shell) = args.shell {
        return print(&script(shell));
    }
    let Some(dir) = &args.dir else { return Ok(Exit::Usage) };
    for shell in Shell::value_variants() {
        use clap_complete::Generator;
        write(dir, &shell.file_name("opship"), &script(*shell))?;
    }
    print(&format!("{} scripts in {}", Shell::value_variants().len(), dir.display()))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), CliError> {
    let path = dir.join(name);
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, text));
    written.map_err(|error| CliError::Failed(format!("write {}: {error}", path.display())))
}

struct Page {
    name: String,
    section: &'static str,
    text: String,
}

/// The main page, one for each command below it, and the configuration's.
fn pages() -> Vec<Page> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, "", &mut pages);
    pages.push(configuration());
    pages
}

fn add(command: &Command, path: &str, pages: &mut Vec<Page>) {
    let name = format!("opship {path}").trim_end().replace(' ', "-");
    pages.push(Page { text: page(command, path), name, section: "1" });
    for below in command.get_subcommands() {
        add(below, format!("{path} {}", below.get_name()).trim_start(), pages);
    }
}

fn page(command: &Command, path: &str) -> String {
    let man = Man::new(command.clone()).manual(MANUAL).source(version());
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = man.render_title(&mut text);
    let _ = man.render_name_section(&mut text);
    let _ = man.render_synopsis_section(&mut text);
    let _ = man.render_description_section(&mut text);
    let _ = man.render_options_section(&mut text);
    if command.has_subcommands() {
        let _ = man.render_subcommands_section(&mut text);
    }
    let mut more = Roff::new();
    list(&mut more, "EXIT STATUS", &meanings_and_remedies());
    list(&mut more, "FILES", FILES);
    list(&mut more, "ENVIRONMENT", VARIABLES);
    more.control("SH", ["EXAMPLES"]);
    for (line, says) in examples(path) {
        more.control("PP", []);
        more.text([roman(format!("{says}:"))]);
        more.control("PP", []);
        more.control("RS", ["4"]);
        more.text([bold(*line)]);
        more.control("RE", []);
    }
    more.control("SH", ["SEE ALSO"]);
    let others =
        [("opship", "1"), (CONFIGURATION, "5")].into_iter().filter(|(name, _)| !(*name == "opship" && path.is_empty()));
    let others: Vec<String> = others.map(|(name, section)| format!("{name}({section})")).collect();
    more.text([roman(others.join(", "))]);
    String::from_utf8_lossy(&text).into_owned() + &more.to_roff()
}

fn version() -> String {
    format!("opship {}", env!("CARGO_PKG_VERSION"))
}

/// A section of terms and what they mean.
fn list<S: AsRef<str>>(roff: &mut Roff, heading: &str, entries: &[(S, S)]) {
    roff.control("SH", [heading]);
    for (term, says) in entries {
        roff.control("TP", []);
        roff.text([bold(term.as_ref())]);
        roff.text([roman(says.as_ref())]);
    }
}

/// `opship.toml(5)`, from the JSON schema of the configuration.
fn configuration() -> Page {
    let mut roff = Roff::new();
    roff.control("TH", [CONFIGURATION, "5", "", &version(), MANUAL]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(format!("{CONFIGURATION} - configuration of opship"))]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A TOML file, then environment variables, which win. Secrets are never written into it, only references to them: \
         env:NAME, file:PATH, keyvault:URL or @Microsoft.KeyVault(SecretUri=URL). An unknown key is an error that names the \
         nearest one. opship config show prints what is in effect, opship check tries it.",
    )]);
    let schema: Value = serde_json::from_str(&show::schema()).unwrap_or_default();
    let mut keys = Vec::new();
    leaves(&schema, "", &mut keys);
    roff.control("SH", ["KEYS"]);
    for (key, schema) in &keys {
        roff.control("TP", []);
        roff.text([bold(key.as_str())]);
        roff.text([roman(said_of(key, schema))]);
    }
    list(&mut roff, "FILES", FILES);
    list(&mut roff, "ENVIRONMENT", VARIABLES);
    roff.control("SH", ["EXAMPLES"]);
    roff.control("PP", []);
    roff.control("RS", ["4"]);
    roff.control("nf", []);
    EXAMPLE.lines().for_each(|line| {
        roff.text([roman(line)]);
    });
    roff.control("fi", []);
    roff.control("RE", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("opship(1), opship-config(1), opship-check(1)")]);
    Page { name: CONFIGURATION.into(), section: "5", text: roff.to_roff() }
}

const EXAMPLE: &str = r#"[accounts.default]
token = "file:/run/credentials/opship.service/token"
[sink]
kind = "azure"
endpoint = "https://NAME.REGION-1.ingest.monitor.azure.com"
dcr_immutable_id = "dcr-00000000000000000000000000000000"
[store]
kind = "file"
path = "/var/lib/opship""#;

/// Every key below a schema; NAME stands for an account's name.
fn leaves<'s>(schema: &'s Value, path: &str, found: &mut Vec<(String, &'s Value)>) {
    let named = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let named = named.map(|(key, below)| (key.as_str(), below));
    let any = schema.get("additionalProperties").filter(|below| below.is_object()).map(|below| ("NAME", below));
    for (key, below) in named.chain(any) {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match below.get("type").and_then(Value::as_str) {
            Some("object") => leaves(below, &path, found),
            _ => found.push((path, below)),
        }
    }
}

/// What a key means, what it may be, its default and its variable.
fn said_of(key: &str, schema: &Value) -> String {
    let description = schema.get("description").and_then(Value::as_str).unwrap_or_default().trim_end();
    let list = |values: &Vec<Value>| values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    let choices = schema.get("enum").and_then(Value::as_array).map(|choices| format!(" One of {}.", list(choices)));
    let default = schema.get("default").map(|default| format!(" Default: {default}."));
    let variable = format!("OPSHIP_{}", key.replace('.', "__").to_uppercase());
    format!("{description}{}{} Variable: {variable}", choices.unwrap_or_default(), default.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command as Process, Stdio};

    /// The requests that the pages use; a line that begins with anything else in a dot is text gone wrong.
    const REQUESTS: &[&str] = &["TH", "SH", "TP", "PP", "RS", "RE", "IP", "nf", "fi", "ie", "el", "ds", "br", "if"];

    #[test]
    fn there_is_a_page_for_each_command_and_one_for_the_configuration() {
        let names: Vec<String> = pages().into_iter().map(|page| format!("{}.{}", page.name, page.section)).collect();
        assert_eq!(
            (names.first().map(String::as_str), names.last().map(String::as_str)),
            (Some("opship.1"), Some("opship.toml.5"))
        );
        for name in ["opship-run.1", "opship-checkpoint.1", "opship-checkpoint-show.1", "opship-man.1"] {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len());
    }

    /// The lines of a section, without what roff adds.
    fn section(page: &str, heading: &str) -> String {
        let heading = if heading.contains(' ') { format!(".SH \"{heading}\"\n") } else { format!(".SH {heading}\n") };
        let (_, below) = page.split_once(&heading).unwrap_or_else(|| panic!("no {heading} in {page}"));
        below.split(".SH").next().unwrap_or_default().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    }

    #[test]
    fn every_page_has_its_exit_codes_files_variables_and_examples() {
        for Page { name, section: number, text } in pages() {
            let at = |heading: &str| section(&text, heading);
            assert!(at("NAME").contains(&format!("{name} - ")), "{text}");
            assert!(
                at("FILES").contains("/etc/opship/config.toml") && at("ENVIRONMENT").contains("OPSHIP_SECTION__KEY")
            );
            if number == "1" {
                for (code, says) in meanings_and_remedies() {
                    assert!(
                        at("EXIT STATUS").contains(&format!("{code}\n{says}\n")),
                        "{code} in {}",
                        at("EXIT STATUS")
                    );
                }
                let path = name.strip_prefix("opship").unwrap().trim_start_matches('-');
                assert!(at("EXAMPLES").contains(&format!("opship {}", path.split('-').next().unwrap())), "{text}");
            }
        }
    }

    #[test]
    fn the_page_of_the_configuration_has_every_key_with_its_default_and_variable() {
        let page = pages().pop().unwrap();
        let keys = section(&page.text, "KEYS");
        let schema: Value = serde_json::from_str(&show::schema()).unwrap();
        let mut all = Vec::new();
        leaves(&schema, "", &mut all);
        assert!(all.len() > 45, "{}", all.len());
        for (key, _) in all {
            assert!(keys.contains(&format!("{key}\n")), "{key}");
        }
        assert!(keys.contains("Default: \"5m\". Variable: OPSHIP_SCHEDULE__OVERLAP"), "{keys}");
    }

    #[test]
    fn the_pages_are_sound_roff() {
        for Page { name, text, .. } in pages() {
            assert!(text.lines().any(|line| line.starts_with(".TH ")), "{name}");
            for line in text.lines() {
                let request = line.strip_prefix('.').map(|rest| rest.split(' ').next().unwrap_or_default());
                assert!(request.is_none_or(|request| REQUESTS.contains(&request)), "{name}: {line}");
                assert!(line.matches("\\fB").count() <= line.matches("\\fR").count(), "{name}: bold goes on: {line}");
                assert!(!line.starts_with('\''), "{name}: {line}");
            }
            assert_eq!(text.matches("\n.RS").count(), text.matches("\n.RE").count(), "{name}");
        }
    }

    /// Where the machine has groff, it has the last word.
    #[test]
    fn groff_renders_the_pages_without_a_warning() {
        for page in pages() {
            let mut groff = Process::new("groff");
            groff.args(["-man", "-ww", "-z", "-Tutf8"]);
            let Ok(mut groff) = groff.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
                eprintln!("no groff here: only `the_pages_are_sound_roff` has looked at the pages");
                return;
            };
            groff.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
            let out = groff.wait_with_output().unwrap();
            assert_eq!(
                (out.status.success(), String::from_utf8_lossy(&out.stderr).as_ref()),
                (true, ""),
                "{}",
                page.name
            );
        }
    }
}
