//! `veilgate token`: publish and play tokens.

use std::io::Read as _;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::keys::KeyArgs;
use super::{Done, EXIT_NO, Failure, out, unix_now};
use crate::app::dev;
use crate::auth::token::{Claims, MAX_TOKEN, TokenError, TokenRequest};
use crate::config::duration;

/// Mint and verify publish and play tokens
#[derive(Subcommand)]
pub(super) enum TokenCommand {
    Mint(MintArgs),
    Verify(VerifyArgs),
}

/// Mint a token that allows publishing or playing
#[derive(Args)]
#[command(
    long_about = "\
Mint a JSON Web Token (HS256) that allows publishing or playing. A stream is named room/stream; \
room/* means every stream of a room. Both options may be repeated.

Only the token goes to stdout, so that it can be put in a variable.",
    after_long_help = "\
EXAMPLES
  veilgate token mint --publish lobby/cam1 --ttl 1h
  veilgate token mint --publish lobby/cam1 --play 'lobby/*' --subject user-42 --json
  veilgate token mint --publish 'lobby/*' --play 'lobby/*' --chat --data --admin
  TOKEN=$(veilgate token mint --play 'lobby/*')"
)]
pub(super) struct MintArgs {
    /// Stream that may be published; may be repeated
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    publish: Vec<String>,

    /// Stream that may be played; may be repeated
    #[arg(long, value_name = "STREAM", value_delimiter = ',')]
    play: Vec<String>,

    /// Allow chat in rooms
    #[arg(long)]
    chat: bool,

    /// Allow data messages in rooms
    #[arg(long)]
    data: bool,

    /// Allow putting others out of rooms
    #[arg(long)]
    admin: bool,

    /// For whom: any text that names the user in your application [default: the token's own id]
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,

    /// How long the token holds: 90s, 10m, 1h, 7d
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = duration::parse)]
    ttl: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

/// Explain a token, claim by claim, and say whether it holds
#[derive(Args)]
#[command(
    long_about = "\
Explain a token, claim by claim, and say whether it holds. The token is read from stdin: it is a \
secret, and arguments are seen by every user of the machine. Exits with 1 when it does not hold.",
    after_long_help = "\
EXAMPLES
  veilgate token mint --play 'lobby/*' | veilgate token verify
  veilgate token verify --json < token.txt"
)]
pub(super) struct VerifyArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) fn run(command: &TokenCommand) -> Done {
    match command {
        TokenCommand::Mint(args) => mint(args),
        TokenCommand::Verify(args) => verify(args),
    }
}

#[derive(Serialize)]
struct Minted<'a> {
    token: String,
    subject: &'a str,
    jti: &'a str,
    publish: &'a [String],
    play: &'a [String],
    chat: bool,
    data: bool,
    admin: bool,
    ttl: u64,
    expires_at: u64,
}

fn mint(args: &MintArgs) -> Done {
    let keys = args.keys.origin()?.token_keys()?;
    let now = unix_now();
    let jti = dev::hex(&dev::random::<16>()?);
    let request = TokenRequest {
        subject: args.subject.clone(),
        publish: args.publish.clone(),
        play: args.play.clone(),
        chat: args.chat,
        data: args.data,
        admin: args.admin,
        ttl: args.ttl,
    };
    // Everything a request can be refused for was on the command line.
    let token =
        keys.mint(now, &request, &jti).map_err(|error| Failure::Usage(error.to_string()))?;
    if !args.json {
        return Ok(out::plain(&format!("{token}\n"))?);
    }
    Ok(out::json(&Minted {
        token,
        subject: request.subject.as_deref().unwrap_or(&jti),
        jti: &jti,
        publish: &request.publish,
        play: &request.play,
        chat: request.chat,
        data: request.data,
        admin: request.admin,
        ttl: args.ttl.as_secs(),
        expires_at: now.as_secs().saturating_add(args.ttl.as_secs()),
    })?)
}

#[derive(Serialize)]
struct Explained<'a> {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a Claims>,
}

fn verify(args: &VerifyArgs) -> Done {
    let keys = args.keys.origin()?.token_keys()?;
    let mut text = Vec::new();
    std::io::stdin().lock().take(MAX_TOKEN as u64 + 64).read_to_end(&mut text)?;
    let text = String::from_utf8(text).map_err(|_| anyhow!("stdin is not a token"))?;
    let now = unix_now();

    let claims = keys.inspect(text.trim());
    let result: Result<(), TokenError> =
        claims.as_ref().map_err(|error| *error).and_then(|claims| claims.check(now).map(drop));
    let claims = claims.ok();
    if args.json {
        let error = result.err();
        out::json(&Explained {
            valid: error.is_none(),
            code: error.map(TokenError::code),
            reason: error.map(|error| error.to_string()),
            claims: claims.as_ref(),
        })?;
    } else {
        let mut told = match result {
            Ok(()) => "valid\n".to_owned(),
            Err(error) => format!("not valid ({}): {error}\n", error.code()),
        };
        if let Some(claims) = &claims {
            told.push_str(&explain(claims, now.as_secs()));
        }
        out::plain(&told)?;
    }
    if result.is_err() { Err(Failure::Told(EXIT_NO)) } else { Ok(()) }
}

fn rooms(claims: &Claims) -> String {
    let grants = [("chat", claims.chat), ("data", claims.data), ("admin", claims.admin)];
    let granted = grants.iter().filter(|(_, granted)| *granted).map(|(name, _)| *name);
    let granted: Vec<&str> = granted.collect();
    if granted.is_empty() { "no chat, data or admin".to_owned() } else { granted.join(", ") }
}

fn explain(claims: &Claims, now: u64) -> String {
    // A token's maker may have put anything there; a terminal must not obey it.
    let plain = |text: &str| text.escape_debug().to_string();
    let list = |streams: &[String]| {
        if streams.is_empty() {
            "nothing".to_owned()
        } else {
            streams.iter().map(|stream| plain(stream)).collect::<Vec<_>>().join(", ")
        }
    };
    let mut lines = vec![
        format!("sub      {}", plain(&claims.sub)),
        format!("jti      {}", plain(&claims.jti)),
        format!("publish  {}", list(&claims.publish)),
        format!("play     {}", list(&claims.play)),
        format!("rooms    {}", rooms(claims)),
        format!("iat      {}", out::moment(claims.iat, now)),
    ];
    if let Some(nbf) = claims.nbf {
        lines.push(format!("nbf      {}", out::moment(nbf, now)));
    }
    lines.push(format!("exp      {}", out::moment(claims.exp, now)));
    if !claims.aud.is_empty() {
        lines.push(format!("aud      {}", list(&claims.aud)));
    }
    lines.join("\n") + "\n"
}
