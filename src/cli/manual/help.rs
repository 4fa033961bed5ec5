//! What `--help` leads with: lines to copy for each command, and where things are.

use crate::cli::Cli;
use crate::cli::exit::meanings;
use clap::{Command, CommandFactory};
use std::fmt::Write as _;

/// A line to copy, and what it does.
pub(crate) type Example = (&'static str, &'static str);

/// By command without `opship`; the empty one is the program itself.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("opship demo", "try it: a built-in simulator, no account needed"),
            ("opship check", "is everything right? a line per step, with the remedy"),
            ("opship run", "ship for ever (service, Container App)"),
            ("opship once", "ship what there is and exit (timer, job)"),
            ("opship status", "is it shipping? a feed a row, and what to do about it"),
            ("opship backfill --from 30d", "a range of the past again, beside the live feed"),
            ("opship reconcile --from 7d", "is the table complete? what is missing, by hour; --repair ships it"),
            ("opship dead-letters list", "what could not be shipped whole, and why"),
        ],
    ),
    (
        "run",
        &[
            ("opship run", "with ./opship.toml or /etc/opship/config.toml"),
            ("opship run --config prod.toml", "with another file"),
        ],
    ),
    (
        "once",
        &[
            ("opship once", "everything there is, then the end"),
            ("opship once --max-duration 4m", "what is left is shipped by the next run"),
            ("opship once --output json", "a line of JSON per feed, for scripts"),
        ],
    ),
    (
        "demo",
        &[
            ("opship demo", "20 s: a history, live events, a tenth of them late"),
            ("opship demo --for 1m --rate 100", "a longer one with more events"),
            ("opship demo --seed 7 --output json", "other events; the figures as JSON"),
        ],
    ),
    (
        "sim",
        &[
            ("opship sim --history 500 --live 2", "500 events, then two a second"),
            ("opship sim --listen 127.0.0.1:8080 --tls", "https on a port of your choice"),
            ("opship sim --faults faults.json", "with scripted faults"),
        ],
    ),
    (
        "check",
        &[
            ("opship check", "a line per step, with the remedy"),
            ("opship check --output json", "the same for scripts; exit 0 only when all hold"),
        ],
    ),
    (
        "checkpoint",
        &[
            ("opship checkpoint show", "where each feed stands, what is in doubt"),
            ("opship checkpoint reset --stream itemusages", "start this stream again at the lookback"),
        ],
    ),
    (
        "checkpoint show",
        &[
            ("opship checkpoint show", "every feed"),
            ("opship checkpoint show --stream auditevents", "one stream of each account"),
            ("opship checkpoint show --output json", "the whole documents, a line each"),
        ],
    ),
    (
        "checkpoint reset",
        &[
            ("opship checkpoint reset --stream itemusages", "what the ledger knows is not shipped again"),
            ("opship checkpoint reset --account acme --reship", "everything within the lookback is shipped again"),
        ],
    ),
    (
        "checkpoint adopt",
        &[
            ("opship checkpoint adopt", "the rule or the account was changed knowingly"),
            ("opship checkpoint adopt --account acme", "for one account"),
        ],
    ),
    (
        "checkpoint rename",
        &[
            ("opship checkpoint rename acme acme-eu", "accounts.acme is called accounts.acme-eu now"),
            ("opship checkpoint rename acme acme-eu --stream itemusages", "one stream moved to another entry"),
        ],
    ),
    (
        "dead-letters",
        &[
            ("opship dead-letters list", "which events could not be shipped whole, and why"),
            ("opship dead-letters replay 5f2c9a01", "ship one again after the cause was repaired"),
        ],
    ),
    (
        "dead-letters list",
        &[
            ("opship dead-letters list", "every letter, the oldest first"),
            ("opship dead-letters list --stream auditevents --output json", "of one stream, a line of JSON each"),
        ],
    ),
    (
        "dead-letters show",
        &[
            ("opship dead-letters show 5f2c9a01", "by the beginning of its id"),
            ("opship dead-letters show 7K7TACGOPFNKNZ6UX3EUPNGKDI --output json", "by the uuid_s of its row"),
        ],
    ),
    (
        "dead-letters replay",
        &[
            ("opship dead-letters replay 5f2c9a01", "one event; its stub row stays, the whole row is a second one"),
            ("opship dead-letters replay --all --account acme", "every letter of an account"),
        ],
    ),
    (
        "dead-letters purge",
        &[
            ("opship dead-letters purge 5f2c9a01", "one letter, after a question"),
            ("opship dead-letters purge --older-than 7d", "what was kept more than a week ago"),
            ("opship dead-letters purge --all --yes", "everything, without a question"),
        ],
    ),
    (
        "status",
        &[
            ("opship status", "a feed a row, and what to do about it; from the running process, else from the store"),
            ("opship status --watch", "a live table until q or Ctrl-C"),
            ("opship status --from-store --output json", "what the checkpoints say, for a script"),
        ],
    ),
    (
        "backfill",
        &[
            ("opship backfill --from 30d --dry-run", "how much of the last 30 days is missing?"),
            ("opship backfill --from 30d", "ship it; given again after an interruption, it goes on where it stood"),
            ("opship backfill --from 2026-10-01 --to 2026-10-08 --stream itemusages", "one week of one stream, UTC"),
        ],
    ),
    (
        "reconcile",
        &[
            ("opship reconcile --from 7d", "is the last week complete? hour by hour where something differs"),
            ("opship reconcile --from 2026-11-20 --to 2026-11-21 --stream itemusages --all", "every hour of a day"),
            ("opship reconcile --from 7d --repair", "ship what is missing, then compare again after the latency"),
        ],
    ),
    (
        "config",
        &[
            ("opship config show", "every setting in effect, secrets hidden"),
            ("opship config schema > opship.schema.json", "for editors"),
        ],
    ),
    (
        "config show",
        &[
            ("opship config show", "as TOML"),
            ("opship config show --config new.toml --output json", "another file, as JSON"),
        ],
    ),
    ("config schema", &[("opship config schema > opship.schema.json", "for editors and linters")]),
    (
        "diagnostics",
        &[
            ("opship diagnostics", "an archive in this folder; its MANIFEST.txt says what it holds"),
            ("opship diagnostics --out /tmp/opship.tar.gz", "in another place"),
            ("opship diagnostics --out - > opship.tar.gz", "out of a container"),
        ],
    ),
    (
        "completions",
        &[
            ("opship completions bash > /etc/bash_completion.d/opship", "for one shell"),
            ("opship completions --dir completions", "for all shells, a file each"),
        ],
    ),
    (
        "man",
        &[
            ("opship man | man -l -", "read the main page"),
            ("opship man --dir /usr/local/share/man", "every page, in man1 and man5"),
        ],
    ),
];

/// Files that opship looks for.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("./opship.toml", "the configuration, when --config is not given and the file exists"),
    ("/etc/opship/config.toml", "the configuration otherwise; without it the environment alone"),
    (
        "store.path or store.container_url",
        "positions, ledger and dead letters: keep them, they must outlive the process",
    ),
];

/// Variables that opship reads.
pub(crate) const VARIABLES: &[(&str, &str)] = &[
    (
        "OPSHIP_SECTION__KEY",
        "a key of the configuration, such as OPSHIP_SINK__KIND=azure; wins over the file. \
         Accounts: OPSHIP_ACCOUNTS__NAME__TOKEN",
    ),
    (
        "any name in an env:NAME reference",
        "the secret itself, such as OP_EVENTS_TOKEN for token = \"env:OP_EVENTS_TOKEN\"",
    ),
    (
        "IDENTITY_ENDPOINT, IDENTITY_HEADER",
        "set by Azure where a managed identity is served (Container Apps, App Service)",
    ),
    ("AZURE_FEDERATED_TOKEN_FILE", "set by Azure for workload identity, with AZURE_TENANT_ID and AZURE_CLIENT_ID"),
];

const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Widest line of two columns; beyond it the explanation stands above the line.
const COLUMNS_MAX: usize = 100;

/// The command line with its examples.
pub(crate) fn command() -> Command {
    let more =
        "opship COMMAND --help shows a command's own examples; opship --help the exit codes, files and variables.";
    let long = format!(
        "Exit codes:\n{}\nFiles:\n{}\nVariables:\n{}\nMan pages: opship man --dir DIR. Problems: opship check, then opship diagnostics.",
        columns(&meanings()),
        columns(FILES),
        columns(VARIABLES)
    );
    with_examples(Cli::command(), "").after_help(more).after_long_help(long)
}

/// The examples of a command, named without `opship`.
pub(crate) fn examples(path: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == path).map_or(&[], |(_, examples)| examples)
}

fn with_examples(command: Command, path: &str) -> Command {
    let shown = examples(path);
    let command = command.help_template(TEMPLATE).mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        with_examples(below, path.trim_start())
    });
    if shown.is_empty() { command } else { command.before_help(format!("Examples:\n{}", columns(shown).trim_end())) }
}

/// Two columns, where they fit.
fn columns<S: AsRef<str>>(lines: &[(S, S)]) -> String {
    let width = lines.iter().map(|(left, _)| left.as_ref().len()).max().unwrap_or_default();
    let fits = lines.iter().all(|(_, right)| width + right.as_ref().len() + 4 <= COLUMNS_MAX);
    let mut text = String::new();
    for (left, right) in lines {
        let (left, right) = (left.as_ref(), right.as_ref());
        // Writing to a String cannot fail.
        let _ =
            if fits { writeln!(text, "  {left:width$}  {right}") } else { writeln!(text, "  {left}\n      {right}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command below, with its path.
    fn all(command: &Command, path: &str, found: &mut Vec<String>) {
        found.push(path.trim_start().to_owned());
        for below in command.get_subcommands() {
            all(below, &format!("{path} {}", below.get_name()), found);
        }
    }

    fn paths() -> Vec<String> {
        let mut found = Vec::new();
        all(&Cli::command(), "", &mut found);
        found
    }

    /// The path of the command that a line would run.
    fn runs(line: &str) -> String {
        let words = line.split([' ']).take_while(|word| !["|", ">", "&&", "2>"].contains(word));
        let matches = command().try_get_matches_from(words);
        let matches = matches.unwrap_or_else(|error| panic!("{line}: {error}"));
        let (mut path, mut at) = (String::new(), &matches);
        while let Some((name, below)) = at.subcommand() {
            path = format!("{path} {name}");
            at = below;
        }
        path.trim_start().to_owned()
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_runs_it() {
        let paths = paths();
        assert!(paths.len() > 12, "{paths:?}");
        for path in &paths {
            assert!(!examples(path).is_empty(), "`opship {path}` needs its examples in src/cli/manual/help.rs");
        }
        for (path, examples) in EXAMPLES {
            assert!(paths.iter().any(|known| known == path), "there is no command `opship {path}`");
            for (line, says) in *examples {
                let ran = runs(line);
                assert!(ran.starts_with(path) && (path.is_empty() || !ran.is_empty()), "{line} runs {ran}");
                assert!(!says.is_empty() && !says.ends_with('.'), "{line}: {says}");
            }
        }
    }

    #[test]
    fn help_leads_with_examples_before_usage_and_options() {
        for path in paths() {
            let words = ["opship"].into_iter().chain(path.split_whitespace()).chain(["--help"]);
            let help = command().try_get_matches_from(words).unwrap_err().to_string();
            let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} is not in {help}"));
            assert!(at("Examples:\n  opship") < at("Usage: opship"), "{help}");
            assert!(at("Usage: opship") < at("Options:"), "{help}");
        }
    }

    #[test]
    fn without_a_command_the_help_is_short_and_says_where_there_is_more() {
        let help = command().try_get_matches_from(["opship"]).unwrap_err().to_string();
        assert!(help.contains("Examples:") && help.contains("Commands:") && help.contains("opship --help"), "{help}");
        assert!(!help.contains("Exit codes:"), "{help}");
        let long = command().try_get_matches_from(["opship", "--help"]).unwrap_err().to_string();
        for (code, meaning) in meanings() {
            assert!(long.contains(&format!("  {code:5}  {meaning}\n")), "{code} {meaning} is not in {long}");
        }
        for (left, _) in FILES.iter().chain(VARIABLES) {
            assert!(long.contains(left), "{left}");
        }
    }

    #[test]
    fn a_misspelt_command_option_or_value_is_answered_with_the_nearest_one() {
        for (line, nearest) in [
            ("opship chekc", "'check'"),
            ("opship checkpoint shwo", "'show'"),
            ("opship once --max-duratoin 1m", "'--max-duration'"),
            ("opship check --output jsn", "'json'"),
        ] {
            let error = command().try_get_matches_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains("similar") && error.contains(nearest), "{line}: {error}");
        }
    }
}
