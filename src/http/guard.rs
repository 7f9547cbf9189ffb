//! Who asks: the token of a request.

use axum::extract::Query;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use serde::Deserialize;

use super::problem::Problem;
use super::{Gateway, Shared};
use crate::auth::token::{Grant, TokenError};
use crate::control::api::Principal;

#[derive(Deserialize)]
struct InQuery {
    access_token: Option<String>,
}

/// The token, wherever it is. `Ok(None)`: there is none.
fn token(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, TokenError> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| TokenError::Malformed)?.trim();
        let token = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            Some(_) => return Err(TokenError::Malformed),
            None if value.eq_ignore_ascii_case("bearer") => "",
            // Some publishers send the bare token.
            None => value,
        };
        if !token.is_empty() {
            return Ok(Some(token.to_owned()));
        }
    }
    let Query(query) = Query::<InQuery>::try_from_uri(uri).map_err(|_| TokenError::Malformed)?;
    Ok(query.access_token.filter(|token| !token.is_empty()))
}

/// What the request's token allows.
pub(super) fn grant<G: Gateway>(
    shared: &Shared<G>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Grant, Problem> {
    let token = token(headers, uri)?.ok_or_else(Problem::no_token)?;
    Ok(shared.keys.verify(shared.gateway.now().unix, &token)?)
}

/// Whom a session's end is asked for by. A token that has run out since the session began must
/// not keep its holder from saying goodbye: the session's URL says enough.
pub(super) fn closer<G: Gateway>(
    shared: &Shared<G>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Option<Principal>, Problem> {
    let Some(token) = token(headers, uri)? else { return Ok(None) };
    match shared.keys.verify(shared.gateway.now().unix, &token) {
        Ok(grant) => Ok(Some(principal(&grant))),
        Err(TokenError::Expired) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn principal(grant: &Grant) -> Principal {
    Principal {
        subject: grant.subject.clone(),
        room: grant.room().map(str::to_owned),
        jti: grant.jti.clone(),
    }
}
