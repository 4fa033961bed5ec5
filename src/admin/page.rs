//! The status page: one document that needs nothing from elsewhere.

/// The whole page.
pub const HTML: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>opship</title></head>\
    <body><h1>opship</h1><p><a href=\"status.json\">status.json</a> <a href=\"metrics\">metrics</a></p></body></html>\n";

/// Its Content-Security-Policy.
pub fn policy() -> String {
    "default-src 'none'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'".into()
}
