//! Layers of configuration: a TOML file, then the environment; merged by figment, read by name, checked once.

use super::conform::{Conform, typed};
use super::problem::{ConfigError, Problems, did_you_mean, listed, nearest};
use super::raw::RawConfig;
use super::schema::{Kind, Node, json_schema};
use super::service_links::is_service_link;
use super::{Config, check};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Prefix of the environment variables that are configuration.
const ENV_PREFIX: &str = "OPSHIP_";
/// Largest configuration file read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the file is.
#[derive(Clone, Debug)]
pub enum ConfigFile {
    /// Asked for by name: must exist.
    Named(PathBuf),
    /// The first that exists; none is fine.
    FirstOf(Vec<PathBuf>),
}

impl ConfigFile {
    /// The value of `--config`; without it `./opship.toml`, else `/etc/opship/config.toml`.
    pub fn from_flag(flag: Option<PathBuf>) -> Self {
        flag.map_or_else(|| Self::FirstOf(vec!["./opship.toml".into(), "/etc/opship/config.toml".into()]), Self::Named)
    }
}

/// What a command cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `run`, `once`, `check`: accounts, `sink.kind`, `store.kind` and the variables that `env:` references name.
    Everything,
    /// Commands that ship nothing: what is there must be right, what is missing stays unset.
    WhatIsThere,
    /// `diagnostics`, after `WhatIsThere` failed: what is wrong is left out, and so is a place in the network that it may concern.
    WhatIsReadable,
}

/// Reads the file and the given environment into a checked [`Config`]. Nothing else is consulted.
///
/// # Errors
/// All problems at once; none of them repeats a secret.
pub fn load(
    file: &ConfigFile,
    env: impl IntoIterator<Item = (String, String)>,
    need: Need,
) -> Result<Config, ConfigError> {
    let env: BTreeMap<String, String> = env.into_iter().collect();
    let schema = json_schema();
    let mut layers = Layers { root: Node(&schema), problems: Problems::default(), figment: Figment::new() };
    let (file_origin, references) = layers.add_file(file, need);
    layers.add_environment(&env, references);
    let Layers { mut problems, figment, .. } = layers;
    if problems.is_about_the_file() && need != Need::WhatIsReadable {
        return Err(problems.into());
    }
    match figment.extract::<RawConfig>() {
        Ok(raw) => check::check(raw, check::Context { figment, file_origin, env, need, problems }),
        // figment would print the value; what got here fits the schema, so this is for a schema that lies
        Err(err) => {
            for error in err {
                problems.add(&file_origin, error.path.join("."), "expected another type");
            }
            Err(problems.into())
        }
    }
}

struct Layers<'a> {
    root: Node<'a>,
    problems: Problems,
    figment: Figment,
}

impl<'a> Layers<'a> {
    /// Adds the file. Returns its name for messages and the variables that its references name.
    fn add_file(&mut self, file: &ConfigFile, need: Need) -> (String, BTreeSet<String>) {
        let (origin, text) = match read_first(file) {
            Ok(found) => found,
            Err((path, why)) => {
                self.problems.add(path.clone(), "", why);
                return (path, BTreeSet::new());
            }
        };
        let table = text.parse::<toml::Table>().unwrap_or_else(|err| {
            self.problems.add(&origin, "", syntax_error(&text, &err));
            if need == Need::WhatIsReadable { readable(&text, &err) } else { toml::Table::new() }
        });
        let mut references = BTreeSet::new();
        named_variables(&toml::Value::Table(table.clone()), &mut references);
        let mut conform = Conform { root: self.root, origin: &origin, problems: &mut self.problems };
        let dict = conform.table(self.root, "", table);
        self.merge(&origin, dict);
        (origin, references)
    }

    fn add_environment(&mut self, env: &BTreeMap<String, String>, mut references: BTreeSet<String>) {
        // an empty variable is an unset one: `${NAME:-}` in a compose file must not override the file
        let ours = || env.iter().filter(|(name, text)| name.starts_with(ENV_PREFIX) && !text.is_empty());
        for (_, text) in ours() {
            named_variables(&text.as_str().into(), &mut references);
        }
        let mut taken = BTreeMap::new();
        for (name, text) in ours() {
            // `token = "env:OPSHIP_TOKEN"`: a secret, no key
            if !references.contains(name) {
                self.add_variable(name, text, &mut taken);
            }
        }
    }

    fn add_variable(&mut self, name: &str, text: &str, taken: &mut BTreeMap<String, String>) {
        let path = path_of(name);
        let origin = format!("environment variable {name}");
        let key = path.join(".");
        let Some(node) = self.find(&path) else {
            if is_service_link(name, text) {
                return;
            }
            let hint = did_you_mean(self.nearest_variable(name, &path).as_deref());
            return self.problems.add(origin, key, format!("unknown key{hint}"));
        };
        if node.kind() == Kind::Section {
            let names: Vec<_> = node.leaves().iter().map(|(leaf, _)| variable_of(&format!("{key}.{leaf}"))).collect();
            let what = format!("is a section, set its keys: {}", listed(names.iter().map(String::as_str)));
            return self.problems.add(origin, key, what);
        }
        if let Some(other) = taken.insert(key.clone(), name.to_owned()) {
            return self.problems.add(origin, key, format!("{other} sets the same key"));
        }
        let mut conform = Conform { root: self.root, origin: &origin, problems: &mut self.problems };
        let Some(value) = conform.value(node, &key, typed(node, text)) else { return };
        let nested = path.iter().rev().fold(value, |value, key| Value::from(Dict::from([(key.clone(), value)])));
        if let Value::Dict(_, dict) = nested {
            self.merge(&origin, dict);
        }
    }

    fn merge(&mut self, origin: &str, dict: Dict) {
        self.figment = std::mem::take(&mut self.figment).merge(Layer { origin: origin.to_owned(), dict });
    }

    fn find(&self, path: &[String]) -> Option<Node<'a>> {
        path.iter().try_fold(self.root, |node, key| node.child(key).filter(|_| !key.is_empty()))
    }

    /// The variable that was probably meant: a sibling in the same section, else one that is spelt alike.
    fn nearest_variable(&self, name: &str, path: &[String]) -> Option<String> {
        if let Some((last, section)) = path.split_last()
            && let Some(node) = self.find(section).filter(|_| !section.is_empty())
            && let Some(key) = nearest(last, node.keys())
        {
            let section: Vec<_> = section.iter().map(|key| key.to_uppercase().replace('-', "_")).collect();
            return Some(format!("{ENV_PREFIX}{}__{}", section.join("__"), key.to_uppercase()));
        }
        let names: Vec<String> = self.root.leaves().iter().map(|(path, _)| variable_of(path)).collect();
        // `OPSHIP_SINK_KIND`: the doubled underscore is what people forget, so it does not count
        let single = |name: &str| name.replace("__", "_");
        let squeezed: Vec<String> = names.iter().map(|name| single(name)).collect();
        let near = nearest(&single(name), squeezed.iter().map(String::as_str))?;
        names.iter().find(|name| single(name) == near).cloned()
    }
}

/// The variable of a key; `default` stands for an account of any name.
pub(super) fn variable_of(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.replace('*', "default").replace('-', "_").to_uppercase().replace('.', "__"))
}

fn path_of(name: &str) -> Vec<String> {
    let rest = name.strip_prefix(ENV_PREFIX).unwrap_or(name).to_lowercase();
    let mut path: Vec<String> = rest.split("__").map(str::to_owned).collect();
    // account names have hyphens, which a shell cannot put in the name of a variable
    if let [section, account, ..] = path.as_mut_slice()
        && section == "accounts"
    {
        *account = account.replace('_', "-");
    }
    path
}

/// Collects NAME of every `env:NAME`.
fn named_variables(value: &toml::Value, names: &mut BTreeSet<String>) {
    match value {
        toml::Value::String(text) => names.extend(text.trim().strip_prefix("env:").map(str::to_owned)),
        toml::Value::Array(items) => items.iter().for_each(|item| named_variables(item, names)),
        toml::Value::Table(table) => table.iter().for_each(|(_, item)| named_variables(item, names)),
        _ => {}
    }
}

/// Name and text of the file; the name says where it was looked for when there is none.
pub(super) fn read_first(file: &ConfigFile) -> Result<(String, String), (String, String)> {
    let (paths, must_exist) = match file {
        ConfigFile::Named(path) => (std::slice::from_ref(path), true),
        ConfigFile::FirstOf(paths) => (paths.as_slice(), false),
    };
    for path in paths {
        let name = path.display().to_string();
        match read(path) {
            Ok(text) => return Ok((name, text)),
            Err(err) if err.kind() == ErrorKind::NotFound && !must_exist => {}
            Err(err) if err.kind() == ErrorKind::NotFound => {
                return Err((name, "there is no such file; see `opship config schema` and config.example.toml".into()));
            }
            Err(err) => return Err((name, format!("cannot be read: {err}"))),
        }
    }
    let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    Ok((format!("environment (no file at {})", looked.join(" or ")), String::new()))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::new(ErrorKind::IsADirectory, "it is a folder"));
    }
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(text)
}

/// What can be read of a broken text: each section that is whole, and of another one what stands before its error. A section that begins
/// with an error is left out, so that none of its keys counts for the one before.
fn readable(text: &str, err: &toml::de::Error) -> toml::Table {
    let starts = text.match_indices('\n').map(|(end, _)| end + 1).filter(|at| begins_a_section(text, *at));
    let starts: Vec<usize> = std::iter::once(0).chain(starts).chain([text.len()]).collect();
    let sections = starts.iter().zip(starts.iter().skip(1)).filter_map(|(from, to)| text.get(*from..*to));
    let whole = sections.map(|section| match section.parse::<toml::Table>() {
        Ok(_) => section,
        Err(err) => {
            Some(lines_before(section, &err)).filter(|before| before.parse::<toml::Table>().is_ok()).unwrap_or_default()
        }
    });
    // Two of the same name are an error of their own.
    let together = whole.collect::<String>().parse();
    together.or_else(|_| lines_before(text, err).parse()).unwrap_or_default()
}

fn begins_a_section(text: &str, at: usize) -> bool {
    text.get(at..).is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with('['))
}

/// The whole lines before an error.
fn lines_before<'t>(text: &'t str, err: &toml::de::Error) -> &'t str {
    let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    before.rfind('\n').and_then(|end| before.get(..=end)).unwrap_or_default()
}

/// Line and column, without the line itself: it may hold a secret.
fn syntax_error(text: &str, err: &toml::de::Error) -> String {
    let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let what = err.message().lines().map(str::trim).collect::<Vec<_>>().join(", ");
    format!("line {line}, column {column}: not TOML: {what}")
}

/// One origin as a figment provider, so that figment knows which value came from where.
struct Layer {
    origin: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// The origin of a key's value.
pub(super) fn origin_of(figment: &Figment, key: &str) -> Option<String> {
    figment.find_metadata(key).map(|metadata| metadata.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_and_its_key_name_each_other() {
        assert_eq!(path_of("OPSHIP_ACCOUNTS__NORTH_SEA__TOKEN"), ["accounts", "north-sea", "token"]);
        assert_eq!(path_of("OPSHIP_SINK__DCR_IMMUTABLE_ID"), ["sink", "dcr_immutable_id"]);
        assert_eq!(variable_of("accounts.north-sea.token"), "OPSHIP_ACCOUNTS__NORTH_SEA__TOKEN");
        assert_eq!(variable_of("accounts.*.token"), "OPSHIP_ACCOUNTS__DEFAULT__TOKEN");
    }

    #[test]
    fn a_broken_section_costs_itself_from_its_error_on_and_no_other_gets_its_keys() {
        for (text, read) in [
            (
                "[log]\nlevel = \"info\nformat = \"json\"\n[store]\nkind = \"file\"\n",
                "[log]\n[store]\nkind = \"file\"\n",
            ),
            (
                "[admin]\nlisten = \"a\"\n[accounts.x\ntoken = \"env:T\"\n [store]\n",
                "[admin]\nlisten = \"a\"\n[store]\n",
            ),
            ("[log]\na = \"\"\"\n[x]\nb = 1\n[y]\nc = 2", "[x]\nb = 1\n[y]\nc = 2"),
            ("[log]\na = 1\n[log]\na = \n[x]\n", "[log]\na = 1\n"),
            ("a = 1\nb\n", "a = 1\n"),
            ("", ""),
        ] {
            let err = format!("{text}\n= ").parse::<toml::Table>().unwrap_err();
            assert_eq!(readable(text, &err), read.parse::<toml::Table>().unwrap(), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_has_a_place_and_no_excerpt() {
        let text = "[accounts.default]\ntoken = \"CANARY\n";
        let err = text.parse::<toml::Table>().unwrap_err();
        let message = syntax_error(text, &err);
        assert!(message.starts_with("line 2, column "), "{message}");
        assert!(!message.contains("CANARY"), "{message}");
    }
}
