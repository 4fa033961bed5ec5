//! The names that differ between the clouds.

use crate::config::Cloud;

/// The names of one cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where tokens come from.
    pub authority: &'static str,
    pub monitor_scope: &'static str,
    pub storage_scope: &'static str,
    pub key_vault_scope: &'static str,
    /// The Log Analytics query API, <https://learn.microsoft.com/azure/azure-monitor/logs/api/access-api>, and its audience.
    pub query_url: &'static str,
    pub query_scope: &'static str,
    /// Host suffixes, with their dot, that may be given a token.
    pub ingestion_hosts: &'static [&'static str],
    pub blob_hosts: &'static [&'static str],
    pub key_vault_hosts: &'static [&'static str],
}

/// Looks the names up.
pub const fn places(cloud: Cloud) -> &'static Places {
    match cloud {
        Cloud::Public => &PUBLIC,
        Cloud::UsGov => &US_GOV,
        Cloud::China => &CHINA,
    }
}

const PUBLIC: Places = Places {
    authority: "https://login.microsoftonline.com",
    monitor_scope: "https://monitor.azure.com/.default",
    storage_scope: STORAGE_SCOPE,
    key_vault_scope: "https://vault.azure.net/.default",
    query_url: "https://api.loganalytics.azure.com",
    // The older name is the audience that every tenant knows, whichever of the two hosts is asked.
    query_scope: "https://api.loganalytics.io/.default",
    ingestion_hosts: &[".ingest.monitor.azure.com"],
    blob_hosts: &[".blob.core.windows.net", ".blob.storage.azure.net"],
    key_vault_hosts: &[".vault.azure.net"],
};

const US_GOV: Places = Places {
    authority: "https://login.microsoftonline.us",
    monitor_scope: "https://monitor.azure.us/.default",
    storage_scope: STORAGE_SCOPE,
    key_vault_scope: "https://vault.usgovcloudapi.net/.default",
    query_url: "https://api.loganalytics.us",
    query_scope: "https://api.loganalytics.us/.default",
    ingestion_hosts: &[".ingest.monitor.azure.us"],
    blob_hosts: &[".blob.core.usgovcloudapi.net"],
    key_vault_hosts: &[".vault.usgovcloudapi.net"],
};

const CHINA: Places = Places {
    authority: "https://login.chinacloudapi.cn",
    monitor_scope: "https://monitor.azure.cn/.default",
    storage_scope: STORAGE_SCOPE,
    key_vault_scope: "https://vault.azure.cn/.default",
    query_url: "https://api.loganalytics.azure.cn",
    query_scope: "https://api.loganalytics.azure.cn/.default",
    ingestion_hosts: &[".ingest.monitor.azure.cn"],
    blob_hosts: &[".blob.core.chinacloudapi.cn"],
    key_vault_hosts: &[".vault.azure.cn"],
};

/// The same audience in every cloud.
const STORAGE_SCOPE: &str = "https://storage.azure.com/.default";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cloud_keeps_its_own_names() {
        for (cloud, suffix) in [(Cloud::Public, ".com"), (Cloud::UsGov, ".us"), (Cloud::China, ".cn")] {
            let places = places(cloud);
            assert_eq!(places.monitor_scope, format!("https://monitor.azure{suffix}/.default"));
            assert_eq!(places.ingestion_hosts, [format!(".ingest.monitor.azure{suffix}")]);
            assert!(places.key_vault_scope.contains(places.key_vault_hosts[0].trim_start_matches('.')));
        }
    }
}
