//! Messages of clients: hostile JSON in, a request or a clear fault out.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Fault;

/// Longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Longest name of a participant, in characters.
pub const MAX_NAME: usize = 64;
/// Longest chat text, in characters.
pub const MAX_CHAT: usize = 2_000;
/// Longest data, in bytes of JSON.
pub const MAX_DATA: usize = 16 * 1024;
/// Most streams in a list of those wanted.
pub const MAX_CHOSEN: usize = 64;
/// Highest layer that can be asked for.
pub const MAX_LAYER: u8 = 7;
/// Highest N of last-N.
pub const MAX_LAST_N: u8 = 64;
/// 2^53 - 1: what JavaScript can count.
const MAX_ID: u64 = (1 << 53) - 1;
/// A fault's detail may quote the client; so much of it, in characters.
const MAX_DETAIL: usize = 300;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// What its reply carries.
    pub id: Option<u64>,
    /// What is asked.
    pub body: Body,
}

/// What is asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    /// To be let into a room.
    Join(Join),
    /// A new publishing connection.
    Publish(Publish),
    /// Its end.
    Unpublish,
    /// An ICE restart.
    Restart(Restart),
    /// The answer to an offer.
    Answer(Answer),
    /// What to play.
    Subscribe(Wanted),
    /// A layer.
    Layer(Layer),
    /// Whether to send something.
    Pause(Tracks, bool),
    /// One's own track is muted, or not any more.
    Mute(Mute),
    /// Words.
    Chat(Chat),
    /// Anything.
    Data(Data),
    /// To put somebody out.
    Kick(Kick),
    /// Pictures of so many only.
    LastN(Option<u8>),
    /// A fresh TURN credential.
    Ice,
    /// To leave.
    Leave,
    /// A sign of life.
    Ping,
}

/// `join`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The access token.
    pub token: String,
    /// The room.
    pub room: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What is played from the start.
    #[serde(default)]
    pub subscribe: Start,
    /// The resume token of a participant that was here.
    #[serde(default)]
    pub resume: Option<String>,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("room", &self.room).finish_non_exhaustive()
    }
}

/// What is played from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// All that others publish.
    #[default]
    All,
    /// Nothing.
    None,
}

/// `publish`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// Under which name in the room.
    pub stream: String,
    /// The offer.
    pub sdp: String,
}

/// `restart`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Of the publishing connection, with its new offer.
    Publish(String),
    /// Of the playing connection.
    Play,
}

/// `answer`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Of which offer.
    pub revision: u32,
    /// The answer.
    pub sdp: String,
}

/// What to play.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All that others publish.
    All,
    /// These.
    Chosen(Vec<String>),
}

/// `layer`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Of which stream.
    pub stream: String,
    /// Of which track; none: the first video.
    #[serde(default)]
    pub track: Option<u8>,
    /// "auto", or a layer's name.
    #[serde(default)]
    pub rid: Option<String>,
    /// A layer's number.
    #[serde(default)]
    pub spatial: Option<u8>,
    /// The highest temporal layer.
    #[serde(default)]
    pub temporal: Option<u8>,
}

/// Which tracks: `pause`, `resume`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracks {
    /// Of which stream.
    pub stream: String,
    /// Which; none: all.
    #[serde(default)]
    pub track: Option<u8>,
}

/// `mute`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mute {
    /// One's own stream.
    pub stream: String,
    /// Which track of it.
    pub track: u8,
    /// Whether it is muted now.
    pub muted: bool,
}

/// `chat`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// The words.
    pub text: String,
    /// To whom; none: all others.
    #[serde(default)]
    pub to: Option<String>,
}

/// `data`.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Any JSON.
    pub data: Value,
    /// To whom; none: all others.
    #[serde(default)]
    pub to: Option<String>,
}

/// `kick`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// Whom.
    pub participant: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRestart {
    connection: Connection,
    #[serde(default)]
    sdp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Connection {
    Publish,
    Play,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    streams: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LastN {
    #[serde(deserialize_with = "Option::deserialize")]
    n: Option<u8>,
}

/// Why a text is no request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unread {
    /// Not even a JSON object with a type: whoever sends this speaks something else.
    NotJson,
    /// A message with a fault.
    Bad(Option<u64>, Fault),
}

impl Request {
    /// Reads a text message.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn read(text: &str) -> Result<Self, Unread> {
        let Ok(Value::Object(mut map)) = serde_json::from_str(text) else {
            return Err(Unread::NotJson);
        };
        let Some(Value::String(kind)) = map.remove("type") else { return Err(Unread::NotJson) };
        let id = match map.remove("id") {
            None => None,
            Some(id) => match id.as_u64().filter(|id| *id <= MAX_ID) {
                Some(id) => Some(id),
                None => {
                    let detail = "id is a whole number from 0 to 2^53 - 1";
                    return Err(Unread::Bad(None, Fault::bad(detail)));
                }
            },
        };
        let body = read_body(&kind, map).map_err(|fault| Unread::Bad(id, fault))?;
        Ok(Self { id, body })
    }
}

fn read_body(kind: &str, map: Map<String, Value>) -> Result<Body, Fault> {
    Ok(match kind {
        "join" => {
            let join: Join = fields(kind, map)?;
            check_name(&join.name)?;
            Body::Join(join)
        }
        "publish" => Body::Publish(fields(kind, map)?),
        "unpublish" => nothing(kind, map, Body::Unpublish)?,
        "restart" => {
            let restart: RawRestart = fields(kind, map)?;
            Body::Restart(match (restart.connection, restart.sdp) {
                (Connection::Publish, Some(sdp)) => Restart::Publish(sdp),
                (Connection::Play, None) => Restart::Play,
                (Connection::Publish, None) => {
                    return Err(Fault::bad("restart: \"publish\" comes with the new offer in sdp"));
                }
                (Connection::Play, Some(_)) => {
                    return Err(Fault::bad("restart: \"play\" takes no sdp, the gateway offers"));
                }
            })
        }
        "answer" => Body::Answer(fields(kind, map)?),
        "subscribe" => Body::Subscribe(wanted(fields::<Subscribe>(kind, map)?.streams)?),
        "layer" => {
            let layer: Layer = fields(kind, map)?;
            if layer.rid.is_some() == layer.spatial.is_some() {
                return Err(Fault::bad("layer: either rid or spatial says which"));
            }
            if layer.spatial.max(layer.temporal).is_some_and(|layer| layer > MAX_LAYER) {
                return Err(Fault::bad("layer: layers are numbered 0 to 7"));
            }
            Body::Layer(layer)
        }
        "pause" => Body::Pause(fields(kind, map)?, true),
        "resume" => Body::Pause(fields(kind, map)?, false),
        "mute" => Body::Mute(fields(kind, map)?),
        "chat" => {
            let chat: Chat = fields(kind, map)?;
            if chat.text.is_empty() {
                return Err(Fault::bad("chat: the text is empty"));
            }
            if chat.text.chars().count() > MAX_CHAT {
                return Err(Fault::new("too_long", "a chat text has at most 2000 characters"));
            }
            Body::Chat(chat)
        }
        "data" => Body::Data(fields(kind, map)?),
        "kick" => Body::Kick(fields(kind, map)?),
        "last_n" => {
            let LastN { n } = fields(kind, map)?;
            if n.is_some_and(|n| n > MAX_LAST_N) {
                return Err(Fault::bad("last_n: n is 0 to 64, or null"));
            }
            Body::LastN(n)
        }
        "ice" => nothing(kind, map, Body::Ice)?,
        "leave" => nothing(kind, map, Body::Leave)?,
        "ping" => nothing(kind, map, Body::Ping)?,
        other => return Err(Fault::bad(clipped(&format!("there is no message \"{other}\"")))),
    })
}

fn fields<T: DeserializeOwned>(kind: &str, map: Map<String, Value>) -> Result<T, Fault> {
    serde_json::from_value(Value::Object(map))
        .map_err(|error| Fault::bad(clipped(&format!("{kind}: {error}"))))
}

fn nothing(kind: &str, map: Map<String, Value>, body: Body) -> Result<Body, Fault> {
    let Nothing {} = fields(kind, map)?;
    Ok(body)
}

fn wanted(streams: Value) -> Result<Wanted, Fault> {
    match streams {
        Value::String(all) if all == "all" => Ok(Wanted::All),
        Value::Array(list) if list.len() > MAX_CHOSEN => {
            Err(Fault::bad("subscribe: at most 64 streams in a list"))
        }
        Value::Array(list) => {
            let names = list.into_iter().map(|name| match name {
                Value::String(name) => Some(name),
                _ => None,
            });
            let names = names.collect::<Option<Vec<_>>>();
            names.map(Wanted::Chosen).ok_or_else(|| Fault::bad("subscribe: a stream is a text"))
        }
        _ => Err(Fault::bad("subscribe: streams is \"all\" or a list")),
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    if name.chars().count() > MAX_NAME {
        return Err(Fault::new("too_long", "a name has at most 64 characters"));
    }
    if name.chars().any(char::is_control) {
        return Err(Fault::bad("join: a name has no control characters"));
    }
    Ok(())
}

/// The library quotes what it found: a fault must not be as long as its message.
fn clipped(text: &str) -> String {
    text.chars().take(MAX_DETAIL).collect()
}
