//! The page, built into the program, and what is at no other path.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;

use super::problem::Problem;

#[derive(RustEmbed)]
#[folder = "src/http/page/"]
struct Files;

/// The router's fallback: a file of the page, or 404.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let name = if path.is_empty() { "index.html" } else { path };
    let Some(content_type) = content_type(name) else {
        return Problem::not_found().into_response();
    };
    // Looked up by exact name: a path with dots in it is no file of ours.
    let Some(file) = Files::iter().find(|known| known == name).and_then(|n| Files::get(&n)) else {
        return Problem::not_found().into_response();
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Problem::wrong_method_for_page().into_response();
    }
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(file.metadata.sha256_hash()));
    // The names do not change with the contents: a browser asks each time, and mostly gets 304.
    let headers = [
        (CONTENT_TYPE, content_type.to_owned()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (ETAG, tag.clone()),
    ];
    let known = request.headers().get(IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|t| t.trim().trim_start_matches("W/") == tag))
    {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    // Lent, not copied: who reads slowly must not hold memory of ours.
    (headers, Body::from(file.data)).into_response()
}

fn content_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}
