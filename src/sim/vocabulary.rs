//! The words synthetic events are made of. Nobody in here exists; addresses are from the documentation ranges.
//! Texts stand in JSON as they are: none needs escaping unless it is escaped here.

/// What an audit event carries about its second object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Aux {
    #[default]
    Nothing,
    /// `aux_uuid`: the session that delegates, or the vault of the item.
    Place,
    /// `aux_info`: how many items changed.
    Changes,
    /// `aux_id`, `aux_uuid`, `aux_details` and, as `aux_info`, the role letter of the user concerned.
    Member,
    /// `aux_id`, `aux_uuid` and `aux_details`: the owner.
    Owner,
}

/// Action, object type and second object of the audit events of a normal day; entries are repeated by frequency:
/// session plumbing is most of the audit log of a real account.
pub(super) const AUDIT_KINDS: &[(&str, &str, Aux)] = &[
    ("dlgsess", "dlgdsess", Aux::Place),
    ("dlgsess", "dlgdsess", Aux::Place),
    ("dlgsess", "dlgdsess", Aux::Place),
    ("dlgsess", "dlgdsess", Aux::Place),
    ("ssotknv", "ssotkn", Aux::Nothing),
    ("ssotknv", "ssotkn", Aux::Nothing),
    ("ssotknv", "ssotkn", Aux::Nothing),
    ("patch", "items", Aux::Changes),
    ("patch", "items", Aux::Changes),
    ("patch", "items", Aux::Changes),
    ("share", "item", Aux::Place),
    ("create", "device", Aux::Owner),
    ("update", "device", Aux::Owner),
    ("join", "gm", Aux::Member),
    ("leave", "gm", Aux::Member),
    ("grant", "uva", Aux::Member),
    ("revoke", "uva", Aux::Member),
    ("grant", "gva", Aux::Changes),
    ("create", "vault", Aux::Nothing),
    ("export", "vault", Aux::Nothing),
    ("begin", "user", Aux::Nothing),
    ("suspend", "user", Aux::Nothing),
    ("reactive", "user", Aux::Nothing),
    ("changenm", "user", Aux::Nothing),
    ("enblmfa", "user", Aux::Nothing),
    ("create", "invite", Aux::Changes),
    ("updatfw", "account", Aux::Nothing),
    ("create", "satoken", Aux::Place),
    ("view", "report", Aux::Nothing),
];

pub(super) const AUDIT_ACTIONS: &[&str] = &[
    "activate", "addgsso", "begin", "beginr", "cancel", "cancelr", "changeks", "changela", "changemp", "changenm",
    "changesk", "chngasso", "chngdsso", "chngpsso", "complete", "completr", "convert", "create", "dealldev", "delete",
    "delgsso", "delshare", "deolddev", "detchild", "disblduo", "disblmfa", "disblsso", "dlgsess", "dvrfydmn",
    "enblduo", "enblmfa", "enblsso", "expire", "export", "grant", "hide", "join", "launchi", "leave", "musercom",
    "muserdec", "patch", "propose", "provsn", "prsndall", "purge", "rdmchild", "reactive", "reauth", "replace",
    "resendts", "revoke", "role", "sdvcsso", "sendpkg", "sendts", "share", "ssotknv", "suspend", "tdvcsso", "trename",
    "trevoke", "trvlaway", "trvlback", "tverify", "uisas", "unhide", "unknown", "unlink", "updatduo", "update",
    "updatea", "updatfw", "updatmfa", "upguest", "uvrfydmn", "verify", "view", "vrfydmn",
];

pub(super) const AUDIT_OBJECTS: &[&str] = &[
    "account", "card", "cred", "device", "dlgdsess", "ec", "famchild", "file", "gm", "group", "gva", "invite", "item",
    "itemhist", "items", "miguser", "mngdacc", "pm", "report", "sa", "satoken", "slackapp", "sso", "ssotkn", "sub",
    "template", "user", "uva", "vault", "vaultkey",
];

pub(super) const ITEM_ACTIONS: &[&str] = &[
    "fill",
    "fill",
    "fill",
    "fill",
    "reveal",
    "reveal",
    "secure-copy",
    "secure-copy",
    "enter-item-edit-mode",
    "export",
    "other",
    "select-sso-provider",
    "server-create",
    "server-fetch",
    "server-update",
    "share",
];

/// Category and type of a sign-in that failed or was only reported.
pub(super) const SIGNIN_TROUBLES: &[(&str, &str)] = &[
    ("credentials_failed", "password_secret_bad"),
    ("credentials_failed", "password_secret_bad"),
    ("credentials_failed", "platform_secret_bad"),
    ("credentials_failed", "platform_secret_disabled"),
    ("credentials_failed", "platform_secret_proxy"),
    ("mfa_failed", "mfa_missing"),
    ("mfa_failed", "totp_bad"),
    ("mfa_failed", "totp_disabled"),
    ("mfa_failed", "totp_timeout"),
    ("mfa_failed", "u2f_bad"),
    ("mfa_failed", "u2f_disabled"),
    ("mfa_failed", "u2f_timeout"),
    ("mfa_failed", "u2f_timout"),
    ("mfa_failed", "duo_bad"),
    ("mfa_failed", "duo_disabled"),
    ("mfa_failed", "duo_native_bad"),
    ("mfa_failed", "duo_timeout"),
    ("mfa_failed", "code_bad"),
    ("mfa_failed", "code_disabled"),
    ("mfa_failed", "code_timeout"),
    ("sso_failed", "non_sso_user"),
    ("sso_failed", "sso_user_mismatch"),
    ("sso_failed", "service_account_sso_denied"),
    ("modern_version_failed", "modern_version_missing"),
    ("modern_version_failed", "modern_version_old"),
    ("firewall_failed", "all_blocked"),
    ("firewall_failed", "anonymous_blocked"),
    ("firewall_failed", "continent_blocked"),
    ("firewall_failed", "country_blocked"),
    ("firewall_failed", "ip_blocked"),
    ("firewall_reported_success", "country_blocked"),
];

pub(super) const SIGNIN_SUCCESSES: &[&str] = &["credentials_ok", "credentials_ok", "mfa_ok", "federated"];

pub(super) const GIVEN_NAMES: &[&str] =
    &["Alex", "Robin", "Sam", "Kim", "Noor", "Zoë", "Łucja", "Søren", "Miyu", "Андрей", "Đức", "Ayşe"];

pub(super) const FAMILY_NAMES: &[&str] = &["Example", "Muster", "Beispiel", "Esempio", "Příklad", "例子", "Sample"];

/// `app_name`, `platform_name` (the host's name in the desktop and mobile apps), `platform_version`, `os_name`, `os_version`.
pub(super) const DEVICES: &[(&str, &str, &str, &str, &str)] = &[
    ("1Password for Mac", "Zoë’s MacBook Pro", "MacBookPro18,1", "MacOSX", "15.1"),
    ("1Password for Windows", "BÜRO-PC-07", "LENOVO 20XW", "Windows", "11 (26100)"),
    ("1Password for iOS", "例子のiPhone 📱", "iPhone16,2", "iOS", "18.1.1"),
    ("1Password for Android", "Pixel “Beispiel”", "Pixel 8", "Android", "15"),
    ("1Password for Linux", "dev-\\\"box\\\"", "Ubuntu", "Linux", "24.04"),
    ("1Password Browser Extension", "Chrome", "131.0.6778.86", "MacOSX", "10.15.7"),
    ("1Password Browser Extension", "Firefox", "133.0", "Windows", "10.0"),
    ("1Password Web App", "Safari", "18.1", "MacOSX", "10.15.7"),
    ("1Password CLI", "runner\\\\ci\\t01", "2.30.3", "Linux", "6.8.0"),
    ("1Password SCIM Bridge", "", "2.9.5", "Linux", "unknown"),
];

/// Country code, region, city, latitude, longitude.
pub(super) const PLACES: &[(&str, &str, &str, &str, &str)] = &[
    ("CA", "Ontario", "Toronto", "43.6532", "-79.3832"),
    ("DE", "Baden-Württemberg", "Tübingen", "48.5216", "9.0576"),
    ("FR", "Île-de-France", "Paris", "48.8566", "2.3522"),
    ("JP", "東京都", "千代田区", "35.694", "139.7536"),
    ("BR", "São Paulo", "São José dos Campos", "-23.1896", "-45.8841"),
    ("US", "California", "Los Angeles", "34.0544", "-118.2441"),
    ("IS", "", "", "64.9631", "-19.0208"),
];

/// Prefixes of the documentation ranges of RFC 5737 and RFC 3849.
pub(super) const NETWORKS: &[&str] = &["192.0.2.", "198.51.100.", "203.0.113.", "2001:db8::"];

/// The columns declared in the data collection rule: the table's without those that the sink fills.
pub(super) const COLUMNS: &[&str] = &[
    "uuid_s",
    "session_uuid",
    "timestamp",
    "country",
    "category",
    "action_type",
    "details",
    "target_user",
    "client",
    "location",
    "actor_uuid",
    "actor_details",
    "actor_type",
    "actor_account_uuid",
    "account_uuid",
    "user_type",
    "user_account_uuid",
    "action",
    "object_type",
    "object_uuid",
    "object_details",
    "aux_id",
    "aux_uuid",
    "aux_details",
    "aux_info",
    "session",
    "used_version",
    "vault_uuid",
    "item_uuid",
    "user",
    "log_source",
];
