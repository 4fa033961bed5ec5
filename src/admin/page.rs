//! The status page: one document with its style and script inside. It shows `/events` or `/status.json` and asks for nothing else.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = concat!(include_str!("page/view.js"), include_str!("page/link.js"));

pub(super) const HTML: &str = concat!(
    "<!doctype html>\n<html lang=\"en\" data-theme=\"auto\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>opship</title>\n",
    "<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("page/style.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("page/page.html"),
    "<script>",
    include_str!("page/view.js"),
    include_str!("page/link.js"),
    "</script>\n</body>\n</html>\n",
);

/// The Content-Security-Policy of the page: this style, this script, the icon of its tab, and requests to where it came from.
pub(super) fn policy() -> String {
    let hash = |text: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)));
    format!(
        "default-src 'none'; style-src {}; script-src {}; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of the only element of this name.
    fn only<'h>(name: &str) -> &'h str {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        assert_eq!((HTML.matches(&open).count(), HTML.matches(&close).count()), (1, 1), "{name}");
        HTML.split_once(&open).unwrap().1.split_once(&close).unwrap().0
    }

    #[test]
    fn the_policy_is_of_the_style_and_the_script_that_the_page_has() {
        assert_eq!(only("style"), STYLE);
        assert_eq!(only("script"), SCRIPT);
    }

    #[test]
    fn nothing_of_the_page_is_written_as_markup_or_comes_from_elsewhere() {
        let markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", "onclick="];
        for word in markup.into_iter().chain(["src=", "url(", "@import", "https://"]) {
            assert!(!HTML.contains(word), "{word}");
        }
        assert!(HTML.len() < 60_000, "{} bytes", HTML.len());
    }
}
