//! `veilgate turn`: TURN credentials.

use std::io::Read as _;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::keys::{KeyArgs, StateArgs};
use super::remote::RemoteArgs;
use super::{Done, EXIT_NO, Failure, out, unix_now};
use crate::app::dev;
use crate::auth::explain::{Explained, Question, code, explain};
use crate::auth::turn::{Class, MAX_USERNAME, Mint, MintError, Refused};
use crate::config::duration;
use crate::ids::StreamName;
use crate::time::Unix;

/// Mint, verify and revoke TURN credentials
#[derive(Subcommand)]
pub(super) enum TurnCommand {
    Mint(MintArgs),
    Verify(VerifyArgs),
    Revoke(RevokeArgs),
}

/// Mint a short-lived TURN credential
#[derive(Args)]
#[command(
    long_about = "\
Mint a TURN credential: a user name and a password for RTCPeerConnection's iceServers.

The name is sealed: it says nothing about its subject to whoever sees it. For --ttl new \
allocations can be made with it; calls that have begun go on until the session limit of the \
configuration (12 hours unless it says otherwise). It reaches the forwarder and nothing else; with \
--class room, for sealed calls, the other clients of its room and nothing else; with --class \
external the peers that relay.external.allow lists, for applications that need a classic TURN server.",
    after_long_help = "\
EXAMPLES
  veilgate turn mint --subject user-42 --ttl 10m
  veilgate turn mint --subject user-42 --room lobby --config veilgate.yaml --json
  veilgate turn mint --subject user-42 --class room --room lobby
  veilgate turn mint --subject me --probe --json > probe.json
  veilgate turn mint --subject jitsi --class external --config veilgate.yaml

With --json, one entry of iceServers and its end:
  {\"urls\":[…],\"username\":…,\"credential\":…,\"ttl\":600,\"expires_at\":1780000600}"
)]
pub(super) struct MintArgs {
    /// For whom: any text that names the user in your application
    #[arg(long, value_name = "TEXT")]
    subject: String,

    /// Only for sessions of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,

    /// What it reaches: forwarder, room (sealed calls; takes --room), or external (the peers that
    /// relay.external.allow lists)
    #[arg(long, value_name = "CLASS", default_value = "forwarder", conflicts_with = "probe",
        value_parser = read_class)]
    class: Class,

    /// For `veilgate probe`: reaches also the echo, and is for no user
    #[arg(long, conflicts_with = "class")]
    probe: bool,

    /// How long new allocations may be made: 90s, 10m, 1h [default: auth.credential_ttl, or 10m]
    #[arg(long, value_name = "SPAN", value_parser = duration::parse)]
    ttl: Option<Duration>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

impl MintArgs {
    const fn class(&self) -> Class {
        if self.probe { Class::Probe } else { self.class }
    }
}

/// Say what a TURN user name was minted for, and whether it still holds
#[derive(Args)]
#[command(
    long_about = "\
Say what a TURN user name was minted for, and whether it still holds. Exits with 1 when nothing \
new can be allocated with it.

Subject and room are stored as hashes: give --subject or --room to compare. What is revoked only \
a running gateway knows: ask it with --gateway.",
    after_long_help = "\
EXAMPLES
  veilgate turn verify '1780000600:k1.Jx3f…'
  veilgate turn mint --subject a --json | jq -r .username | veilgate turn verify --subject a"
)]
pub(super) struct VerifyArgs {
    /// The user name [default: read from stdin]
    #[arg(value_name = "USERNAME")]
    username: Option<String>,

    /// Compare with this subject
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,

    /// Compare with this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    keys: KeyArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// Revoke TURN credentials: live allocations end, new ones are refused
#[derive(Args)]
#[command(
    long_about = "\
Revoke TURN credentials on a running gateway. Allocations that live by them end within two \
seconds, and no new ones are made; no crash of the gateway forgets it.

A subject or a room loses what was minted up to now. What is minted afterwards is good: to keep \
somebody out, stop minting for them as well.",
    after_long_help = "\
EXAMPLES
  veilgate turn revoke --subject user-42 --reason 'left the team'
  veilgate turn revoke --username '1780000600:k1.Jx3f…' --gateway https://turn.example.org \
--key-file admin.key

Without --gateway the development gateway is asked."
)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    what: WhatArgs,

    /// Why, for the list of revocations
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Forget the revocation after this span [default: when nothing it struck can be alive]
    #[arg(long, value_name = "SPAN", value_parser = duration::parse)]
    keep: Option<Duration>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct WhatArgs {
    /// One credential, by its TURN user name
    #[arg(long, value_name = "USERNAME")]
    username: Option<String>,

    /// All credentials of this subject
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,

    /// All credentials of this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
}

fn read_class(name: &str) -> Result<Class, &'static str> {
    Class::from_name(name).ok_or("a class is forwarder, room or external")
}

pub(super) fn run(command: &TurnCommand) -> Done {
    match command {
        TurnCommand::Mint(args) => mint(args),
        TurnCommand::Verify(args) => verify(args),
        TurnCommand::Revoke(args) => revoke(args),
    }
}

/// One entry of `iceServers`, and when it ends.
#[derive(Serialize, Deserialize)]
struct IceServer {
    urls: Vec<String>,
    username: String,
    credential: String,
    ttl: u64,
    expires_at: u64,
}

fn mint(args: &MintArgs) -> Done {
    if args.subject.is_empty() {
        return Err(Failure::Usage("--subject is empty".to_owned()));
    }
    if args.class == Class::Room && args.room.is_none() {
        return Err(Failure::Usage("--class room takes --room: it is for one room".to_owned()));
    }
    if let Some(Err(error)) = args.room.as_deref().map(StreamName::check_part) {
        return Err(Failure::Usage(format!("--room: {error}")));
    }
    let now = unix_now();
    let class = args.class();
    let server = match args.remote.given()? {
        Some(remote) => {
            let body = serde_json::json!({
                "subject": args.subject,
                "room": args.room,
                "class": (class != Class::Forwarder).then_some(class.name()),
                "ttl": args.ttl.map(|ttl| ttl.as_secs()),
            });
            remote.post("/v1/turn/credentials", &body)?
        }
        None => mint_here(args, now)?,
    };
    if args.json {
        return Ok(out::json(&server)?);
    }
    let mut text = String::new();
    for url in &server.urls {
        text.push_str(&format!("url         {url}\n"));
    }
    text.push_str(&format!(
        "username    {}\ncredential  {}\nexpires     {}\n",
        server.username,
        server.credential,
        out::moment(server.expires_at, now.as_secs())
    ));
    Ok(out::plain(&text)?)
}

fn verify(args: &VerifyArgs) -> Done {
    let remote = args.remote.given()?;
    let keys = match remote {
        Some(_) => None,
        None => Some(args.keys.origin()?.turn_keys()?),
    };
    let username = match &args.username {
        Some(username) => username.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_USERNAME as u64 + 64).read_to_string(&mut text)?;
            text
        }
    };
    let now = unix_now();
    let question = Question {
        username: username.trim(),
        subject: args.subject.as_deref(),
        room: args.room.as_deref(),
    };
    let explained: Explained = match (remote, keys) {
        (Some(remote), _) => {
            let body = serde_json::json!({
                "username": question.username,
                "subject": question.subject,
                "room": question.room,
            });
            remote.post("/v1/turn/credentials/verify", &body)?
        }
        // What is revoked only the gateway knows.
        (None, Some(keys)) => explain(&keys, now, question, |_| false),
        (None, None) => return Err(Failure::Told(EXIT_NO)),
    };
    if args.json {
        out::json(&explained)?;
    } else {
        out::plain(&as_text(&explained, now.as_secs()))?;
    }
    if explained.valid { Ok(()) } else { Err(Failure::Told(EXIT_NO)) }
}

fn as_text(explained: &Explained, now: u64) -> String {
    let told = |matches: Option<bool>| match matches {
        Some(true) => "  (as given)",
        Some(false) => "  (not the one given)",
        None => "",
    };
    let mut text = match explained.reason.as_deref() {
        None => "valid\n".to_owned(),
        Some(reason) => {
            let refused = [Refused::UnknownKey, Refused::Malformed, Refused::Forged];
            let refused = refused.into_iter().find(|refused| code(*refused) == reason);
            let words = refused.map_or_else(|| reason.replace('_', " "), |r| r.to_string());
            format!("not valid: {words}\n")
        }
    };
    let Some(subject) = &explained.subject_hash else { return text };
    let class = explained.class.as_deref().unwrap_or("not known");
    let reach = match class {
        "forwarder" => ": reaches the media address, nothing else",
        "room" => ": reaches the other clients of its room, nothing else",
        "external" => ": reaches the peers that relay.external.allow lists",
        "probe" => ": reaches the media address and the echo of probes",
        _ => "",
    };
    text.push_str(&format!("class        {class}{reach}\n"));
    text.push_str(&format!("subject      hash {subject}{}\n", told(explained.subject_matches)));
    let room = explained.room_hash.as_ref().map_or_else(
        || "any".to_owned(),
        |room| format!("hash {room}{}", told(explained.room_matches)),
    );
    text.push_str(&format!("room         {room}\n"));
    let moment =
        |at: Option<u64>, none: &str| at.map_or_else(|| none.to_owned(), |at| out::moment(at, now));
    text.push_str(&format!("issued       {}\n", moment(explained.issued_at, "not known")));
    text.push_str(&format!("allocate by  {}\n", moment(explained.allocate_by, "for ever")));
    text.push_str(&format!("live until   {}\n", moment(explained.live_until, "for ever")));
    text
}

/// Mints with the keys of this machine.
fn mint_here(args: &MintArgs, now: Unix) -> Result<IceServer, Failure> {
    let origin = args.keys.origin()?;
    let keys = origin.turn_keys()?;
    let lives = origin.lives();
    let ttl = args.ttl.unwrap_or(lives.ttl);
    if args.class == Class::External && !origin.is_external() {
        return Err(Failure::No(MintError::ClassOff.into()));
    }
    let request = Mint {
        subject: &args.subject,
        room: args.room.as_deref(),
        class: args.class(),
        ttl,
        session_limit: lives.session_limit,
    };
    let urls = origin.urls()?;
    let minted = keys
        .mint(now, &request, dev::random()?)
        .map_err(|error| Failure::No(anyhow!("{error}")))?;
    Ok(IceServer {
        urls,
        username: minted.username,
        credential: minted.credential,
        ttl: ttl.as_secs(),
        expires_at: minted.allocate_by.as_secs(),
    })
}

/// What the gateway says of a revocation.
#[derive(Serialize, Deserialize)]
struct Revoked {
    id: i64,
    kind: String,
    hash: String,
    not_before: u64,
    expires_at: Option<u64>,
    reason: Option<String>,
    made_at: u64,
}

fn revoke(args: &RevokeArgs) -> Done {
    let remote = args.remote.given_or_development(&args.state)?;
    let now = unix_now().as_secs();
    let body = serde_json::json!({
        "username": args.what.username,
        "subject": args.what.subject,
        "room": args.what.room,
        "reason": args.reason,
        "expires_at": args.keep.map(|span| now.saturating_add(span.as_secs())),
    });
    let revoked: Revoked = remote.post("/v1/turn/revocations", &body)?;
    if args.json {
        return Ok(out::json(&revoked)?);
    }
    let until = revoked
        .expires_at
        .map_or_else(|| "for ever".to_owned(), |at| format!("until {}", out::moment(at, now)));
    let what = match revoked.kind.as_str() {
        "username" => "the credential".to_owned(),
        kind => format!("all that was minted for the {kind} so far"),
    };
    Ok(out::plain(&format!("revoked: {what} (hash {}); kept in force {until}\n", revoked.hash))?)
}
