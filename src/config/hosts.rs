//! Which hosts opship talks to: 1Password's and Azure's own, and the few it was told. Everything else is refused,
//! so that a changed address cannot carry a bearer token away.

use super::Cloud;
use std::collections::BTreeSet;
use url::{Host, Url};

/// Whom a URL is meant to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// 1Password's Events API.
    Events,
    /// Azure Monitor's logs ingestion endpoint.
    Ingestion,
    /// Azure blob storage.
    Blob,
    /// Azure Key Vault.
    KeyVault,
    /// The Log Analytics query API.
    Query,
}

/// The part of the configuration that widens or narrows the list.
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    pub cloud: Cloud,
    pub allow_insecure_loopback: bool,
    /// `HOST` or `HOST:PORT`, as [`allowed_host`] returns them.
    pub allow_hosts: BTreeSet<String>,
}

/// Addresses of the Events API, <https://developer.1password.com/docs/events-api/reference/#servers>.
const EVENTS_HOSTS: [&str; 4] =
    ["events.1password.com", "events.ent.1password.com", "events.1password.ca", "events.1password.eu"];

/// How the host names of an Azure service end in a cloud.
const fn azure_suffixes(service: Service, cloud: Cloud) -> &'static [&'static str] {
    match (service, cloud) {
        (Service::Events, _) => &[],
        (Service::Ingestion, Cloud::Public) => &[".ingest.monitor.azure.com"],
        (Service::Ingestion, Cloud::UsGov) => &[".ingest.monitor.azure.us"],
        (Service::Ingestion, Cloud::China) => &[".ingest.monitor.azure.cn"],
        // the second one: accounts with Azure DNS zone endpoints
        (Service::Blob, Cloud::Public) => &[".blob.core.windows.net", ".blob.storage.azure.net"],
        (Service::Blob, Cloud::UsGov) => &[".blob.core.usgovcloudapi.net"],
        (Service::Blob, Cloud::China) => &[".blob.core.chinacloudapi.cn"],
        (Service::KeyVault, Cloud::Public) => &[".vault.azure.net"],
        (Service::KeyVault, Cloud::UsGov) => &[".vault.usgovcloudapi.net"],
        (Service::KeyVault, Cloud::China) => &[".vault.azure.cn"],
        (Service::Query, _) => &[],
    }
}

/// Hosts of the Log Analytics query API, <https://learn.microsoft.com/azure/azure-monitor/logs/api/access-api>.
const fn query_hosts(cloud: Cloud) -> &'static [&'static str] {
    match cloud {
        Cloud::Public => &["api.loganalytics.azure.com", "api.loganalytics.io"],
        Cloud::UsGov => &["api.loganalytics.us"],
        Cloud::China => &["api.loganalytics.azure.cn"],
    }
}

/// Accepts a URL that may be given a credential. The refusal repeats the host, never path, query or userinfo.
///
/// # Errors
/// What is wrong and which key allows it.
pub fn check_url(url: &Url, service: Service, rules: &HostRules) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user name or password in the URL is not allowed".into());
    }
    if url.fragment().is_some() {
        return Err("a `#` part in the URL is not allowed".into());
    }
    let Some(host) = url.host() else { return Err("expected a URL with a host".into()) };
    let loopback = rules.allow_insecure_loopback && is_loopback(&host);
    match url.scheme() {
        "https" | "http" if loopback => Ok(()),
        "https" => check_host(&host, url, service, rules),
        "http" => Err("expected https://; http:// is allowed to 127.0.0.1 and [::1] only, \
             with `delivery.allow_insecure_loopback = true`"
            .into()),
        _ => Err("expected https://".into()),
    }
}

fn check_host(host: &Host<&str>, url: &Url, service: Service, rules: &HostRules) -> Result<(), String> {
    let name = host.to_string();
    let with_port = format!("{name}:{}", url.port_or_known_default().unwrap_or(443));
    if rules.allow_hosts.contains(&name) || rules.allow_hosts.contains(&with_port) {
        return Ok(());
    }
    let suffixes = azure_suffixes(service, rules.cloud);
    let own = matches!(host, Host::Domain(_))
        && match service {
            Service::Events => EVENTS_HOSTS.contains(&name.as_str()),
            Service::Query => query_hosts(rules.cloud).contains(&name.as_str()),
            Service::Ingestion | Service::Blob | Service::KeyVault => suffixes.iter().any(|end| is_below(&name, end)),
        };
    match (own, url.port()) {
        (true, None) => Ok(()),
        (true, Some(port)) => {
            Err(format!("port {port} is not expected at `{name}`; `delivery.allow_hosts` can allow it"))
        }
        (false, _) => Err(format!(
            "the host `{name}` is not {}; if it is yours, add it to `delivery.allow_hosts`",
            expected_hosts(service, rules.cloud)
        )),
    }
}

/// `name` is `LABELS` + `end` with at least one label that is not empty.
fn is_below(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|labels| labels.split('.').all(|label| !label.is_empty()))
}

fn expected_hosts(service: Service, cloud: Cloud) -> String {
    let suffixes =
        || azure_suffixes(service, cloud).iter().map(|end| format!("*{end}")).collect::<Vec<_>>().join(" or ");
    match service {
        Service::Events => format!("one of 1Password's ({})", EVENTS_HOSTS.join(", ")),
        Service::Ingestion => format!("a logs ingestion endpoint of this `azure.cloud` ({})", suffixes()),
        Service::Blob => format!("a blob storage account of this `azure.cloud` ({})", suffixes()),
        Service::KeyVault => format!("a key vault of this `azure.cloud` ({})", suffixes()),
        Service::Query => format!("the query API of this `azure.cloud` ({})", query_hosts(cloud).join(", ")),
    }
}

/// The hosts that plain http may reach: their traffic never leaves the machine. Not `localhost`: a name is what a resolver makes of it.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(_) => false,
        Host::Ipv4(address) => *address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => *address == std::net::Ipv6Addr::LOCALHOST,
    }
}

/// An entry of `allow_hosts` in the form that [`check_url`] compares; `None` when it is not `HOST` or `HOST:PORT`.
pub fn allowed_host(entry: &str) -> Option<String> {
    let bare_ipv6 = entry.parse::<std::net::Ipv6Addr>().is_ok();
    let authority = if bare_ipv6 { format!("[{entry}]") } else { entry.to_owned() };
    if authority.is_empty()
        || authority.contains(['/', '\\', '@', '?', '#', '*', '%'])
        || authority.contains(char::is_whitespace)
    {
        return None;
    }
    let url = Url::parse(&format!("https://{authority}")).ok()?;
    let host = url.host_str()?;
    // 443 is the default port, which `Url` does not report
    let explicit = url.port().or_else(|| authority.ends_with(":443").then_some(443));
    Some(explicit.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, service: Service, rules: &HostRules) -> Result<(), String> {
        check_url(&Url::parse(url).unwrap(), service, rules)
    }

    #[test]
    fn own_hosts_pass_by_https_and_the_cloud_decides() {
        let gov = HostRules { cloud: Cloud::UsGov, ..HostRules::default() };
        let public = HostRules::default();
        for (url, service) in [
            ("https://events.1password.eu", Service::Events),
            ("https://x-1.westeurope-1.ingest.monitor.azure.com/", Service::Ingestion),
            ("https://acct.blob.core.windows.net/opship?sig=x", Service::Blob),
            ("https://acct.z01.blob.storage.azure.net/opship", Service::Blob),
            ("https://v.vault.azure.net/secrets/t", Service::KeyVault),
            ("https://api.loganalytics.azure.com", Service::Query),
            ("https://api.loganalytics.io", Service::Query),
        ] {
            assert_eq!(check(url, service, &public), Ok(()), "{url}");
        }
        assert_eq!(check("https://x.ingest.monitor.azure.us", Service::Ingestion, &gov), Ok(()));
        assert_eq!(check("https://api.loganalytics.us", Service::Query, &gov), Ok(()));
        assert!(check("https://api.loganalytics.us", Service::Query, &public).is_err());
        assert!(check("https://x.ingest.monitor.azure.us", Service::Ingestion, &public).is_err());
        assert!(check("https://x.ingest.monitor.azure.com", Service::Ingestion, &gov).is_err());
    }

    #[test]
    fn look_alikes_are_refused() {
        let lax = HostRules { allow_insecure_loopback: true, ..HostRules::default() };
        for (url, service) in [
            ("https://events.1password.com.evil.example", Service::Events),
            ("https://evil-events.1password.com", Service::Events),
            ("https://events.1password.com@evil.example", Service::Events),
            ("https://events.1password.com:8443", Service::Events),
            ("https://events.1password.com./", Service::Events),
            ("https://user:pw@events.1password.com", Service::Events),
            ("https://events.1password.com/#x", Service::Events),
            ("https://acct.blob.core.windows.net/c", Service::Events),
            ("https://.ingest.monitor.azure.com", Service::Ingestion),
            ("https://ingest.monitor.azure.com", Service::Ingestion),
            ("https://93.184.216.34", Service::Events),
            ("https://[2001:db8::1]", Service::Blob),
            ("https://x.api.loganalytics.io", Service::Query),
            ("https://api.loganalytics.io.evil.example", Service::Query),
            ("http://events.1password.com", Service::Events),
            ("http://127.0.0.2:1", Service::Events),
            ("http://localhost:1", Service::Events),
            ("http://localhost.evil.example", Service::Events),
            ("http://[::ffff:127.0.0.1]", Service::Events),
            ("ftp://127.0.0.1", Service::Events),
        ] {
            assert!(check(url, service, &lax).is_err(), "{url}");
        }
    }

    #[test]
    fn loopback_needs_the_switch_and_nothing_else() {
        let lax = HostRules { allow_insecure_loopback: true, ..HostRules::default() };
        for url in ["http://127.0.0.1:9", "http://[::1]:9", "https://127.0.0.1:9"] {
            assert_eq!(check(url, Service::Events, &lax), Ok(()), "{url}");
            assert!(check(url, Service::Events, &HostRules::default()).is_err(), "{url}");
        }
    }

    #[test]
    fn a_listed_host_passes_by_https_only() {
        let allow_hosts = ["proxy.example", "10.0.0.1:8443", "::1"].iter().filter_map(|h| allowed_host(h)).collect();
        let rules = HostRules { allow_hosts, ..HostRules::default() };
        assert_eq!(check("https://proxy.example:8443", Service::Events, &rules), Ok(()));
        assert_eq!(check("https://10.0.0.1:8443", Service::Events, &rules), Ok(()));
        assert_eq!(check("https://[::1]", Service::Events, &rules), Ok(()));
        assert!(check("https://10.0.0.1:8444", Service::Events, &rules).is_err());
        assert!(check("http://proxy.example", Service::Events, &rules).is_err());
        assert!(check("https://sub.proxy.example", Service::Events, &rules).is_err());
    }

    #[test]
    fn an_entry_is_a_host_and_no_url_or_pattern() {
        assert_eq!(allowed_host("Proxy.Example").as_deref(), Some("proxy.example"));
        assert_eq!(allowed_host("proxy.example:443").as_deref(), Some("proxy.example:443"));
        assert_eq!(allowed_host("::1").as_deref(), Some("[::1]"));
        for entry in ["", "https://a.example", "a.example/x", "*.example", "u@a.example", "a b", "a:b:c"] {
            assert_eq!(allowed_host(entry), None, "{entry}");
        }
    }
}
