//! What a 403 of the destination asks for: most often a role, but not where the answer says otherwise.

use super::suspicion::is_azures;

/// Of a destination that does not let the identity write.
pub const ROLE: &str = "give the identity the role Monitoring Metrics Publisher on the data collection rule; a new assignment takes up to 30 minutes \
    to spread";
const NOT_BOUND: &str = "no role is missing: the data collection rule does not belong to this endpoint; set sink.endpoint to the rule's own \
    logsIngestion endpoint, or to that of the data collection endpoint that the rule names";
const NETWORK: &str = "no role is missing: the endpoint takes nothing from this network; let the address in, or reach it by the private link, and \
    look at the public network access of the data collection endpoint";
const BARRED: &str = "the refusal is no answer of Azure's: look for a firewall, proxy or gateway between opship and sink.endpoint and let the \
    POSTs through; it is tried again by itself";

/// What to do about a 403 of the destination: most often a role, but not where the answer says otherwise (the fields of
/// `PipelineAccessResult`; learn.microsoft.com/azure/azure-monitor/logs/data-collection-troubleshoot).
pub fn forbidden(code: &str, message: &str) -> &'static str {
    let says = |text: &str| message.to_ascii_lowercase().contains(text);
    if says("isdcrdcebindingvalid: false") {
        return NOT_BOUND;
    }
    if ["public network", "private link", "network security perimeter"].into_iter().any(says) {
        return NETWORK;
    }
    if is_azures(code) { ROLE } else { BARRED }
}
