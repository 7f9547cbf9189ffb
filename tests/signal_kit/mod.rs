//! A media side that agrees to everything, and the schema that every message is held against.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use veilgate::auth::secret::Key;
use veilgate::auth::token::{Grant, TokenKeys, TokenRequest};
use veilgate::control::api::{Accepted, IceConfig, Principal, Refusal};
use veilgate::control::rooms::media::{
    AudioLevel, Media, PlayOffer, PlayedTrack, PlayingId, Speaker, StreamEvent, StreamInfo,
    TrackInfo, Wish,
};
use veilgate::control::rooms::outbox::{Item, Outbox};
use veilgate::control::rooms::request::{Body, Join, Request, Start, Unread};
use veilgate::control::rooms::{Attached, Joining, Refused, Room};
use veilgate::ids::StreamName;
use veilgate::time::{Mono, Now, Unix};
use veilgate::wire::media::{CodecName, MediaKind};

struct Schema {
    schemas: Schemas,
    client: SchemaIndex,
    server: SchemaIndex,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    const URL: &str = "urn:veilgate:signalling:1";
    let text = include_str!("../../docs/signalling.schema.json");
    let schema: Value = serde_json::from_str(text).expect("JSON");
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource(URL, schema).expect("a schema");
    let mut side = |name: &str| {
        let url = format!("{URL}#/$defs/{name}");
        compiler.compile(&url, &mut schemas).unwrap_or_else(|error| panic!("{error:#}"))
    };
    let (client, server) = (side("client"), side("server"));
    Schema { schemas, client, server }
});

/// Whether a message may come from a client.
pub(crate) fn fits_client(message: &Value) -> bool {
    SCHEMA.schemas.validate(message, SCHEMA.client).is_ok()
}

/// A message of the gateway, which must be as the schema says.
pub(crate) fn from_server(text: &str) -> Value {
    let message: Value = serde_json::from_str(text).expect("JSON");
    if let Err(error) = SCHEMA.schemas.validate(&message, SCHEMA.server) {
        panic!("{message:#}\n{error:#}");
    }
    message
}

/// A message of a client, which must be as the schema says.
pub(crate) fn from_client(message: &Value) -> String {
    if let Err(error) = SCHEMA.schemas.validate(message, SCHEMA.client) {
        panic!("{message:#}\n{error:#}");
    }
    message.to_string()
}

pub(crate) fn name(stream: &str) -> StreamName {
    format!("lobby/{stream}").parse().expect("a name")
}

/// A microphone and a camera with three layers.
pub(crate) fn camera(stream: &str) -> StreamInfo {
    let rids = ["q", "h", "f"].map(str::to_owned).to_vec();
    let tracks = vec![
        TrackInfo { kind: MediaKind::Audio, codec: CodecName::Opus, rids: Vec::new() },
        TrackInfo { kind: MediaKind::Video, codec: CodecName::Vp8, rids },
    ];
    StreamInfo { name: name(stream), tracks }
}

#[derive(Default)]
struct Connection {
    streams: Vec<StreamName>,
    revision: u32,
    awaiting: bool,
    dirty: bool,
}

#[derive(Default)]
struct State {
    /// Who published each name in use.
    published: HashMap<StreamName, String>,
    live: Vec<StreamInfo>,
    playing: BTreeMap<PlayingId, Connection>,
    closed: BTreeSet<String>,
    steered: Vec<(String, u8, Wish)>,
    levels: HashMap<StreamName, AudioLevel>,
    estimate: Option<u64>,
    refusal: Option<Refusal>,
    count: u32,
}

/// The media side.
#[derive(Default)]
pub(crate) struct FakeMedia {
    state: Mutex<State>,
}

impl FakeMedia {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// A publisher's media connection stands.
    pub(crate) fn start(&self, info: StreamInfo) -> StreamEvent {
        let mut state = self.state();
        state.live.push(info.clone());
        state.published.entry(info.name.clone()).or_insert_with(|| "whip".to_owned());
        StreamEvent::Started(info)
    }

    /// A stream is over.
    pub(crate) fn end(&self, stream: &str) -> StreamEvent {
        let mut state = self.state();
        let name = name(stream);
        state.live.retain(|info| info.name != name);
        state.published.remove(&name);
        StreamEvent::Ended(name)
    }

    pub(crate) fn resource_of(&self, stream: &str) -> Option<String> {
        self.state().published.get(&name(stream)).cloned()
    }

    /// Whether the session of a publisher was told to end.
    pub(crate) fn was_closed(&self, resource: &str) -> bool {
        self.state().closed.contains(resource)
    }

    /// The playing connections there are.
    pub(crate) fn playing(&self) -> Vec<String> {
        self.state().playing.keys().map(|id| id.0.clone()).collect()
    }

    pub(crate) fn end_playing(&self, playing: &str) -> StreamEvent {
        self.state().playing.remove(&PlayingId(playing.to_owned()));
        StreamEvent::SessionEnded { resource: playing.to_owned() }
    }

    /// What players wished since this was last asked.
    pub(crate) fn steered(&self) -> Vec<(String, u8, Wish)> {
        std::mem::take(&mut self.state().steered)
    }

    pub(crate) fn set_level(&self, stream: &str, level: u8, speaking: bool) {
        self.state().levels.insert(name(stream), AudioLevel { level, speaking });
    }

    pub(crate) fn set_estimate(&self, bps: u64) {
        self.state().estimate = Some(bps);
    }

    /// The next thing asked is refused.
    pub(crate) fn refuse_next(&self, refusal: Refusal) {
        self.state().refusal = Some(refusal);
    }
}

impl State {
    fn refused(&mut self) -> Result<(), Refusal> {
        self.refusal.take().map_or(Ok(()), Err)
    }

    fn connection(&mut self, playing: &PlayingId) -> Result<&mut Connection, Refusal> {
        self.playing.get_mut(playing).ok_or(Refusal::NotFound)
    }

    fn offer(&mut self, playing: &PlayingId) -> Result<Option<PlayOffer>, Refusal> {
        let live = self.live.clone();
        let connection = self.connection(playing)?;
        if connection.awaiting {
            connection.dirty = true;
            return Ok(None);
        }
        connection.revision += 1;
        connection.awaiting = true;
        connection.dirty = false;
        let mut tracks = Vec::new();
        for info in live.iter().filter(|info| connection.streams.contains(&info.name)) {
            for (track, of) in (0..).zip(&info.tracks) {
                let (mid, stream) = (tracks.len().to_string(), info.name.clone());
                tracks.push(PlayedTrack { mid, stream, track, kind: of.kind });
            }
        }
        let sdp = format!("offer {} of {}", connection.revision, tracks.len());
        Ok(Some(PlayOffer { revision: connection.revision, sdp, tracks }))
    }
}

impl Media for FakeMedia {
    fn publish(
        &self,
        name: &StreamName,
        _: &Principal,
        _: Speaker<'_>,
        sdp: &str,
    ) -> Result<Accepted, Refusal> {
        let mut state = self.state();
        state.refused()?;
        if sdp == "rubbish" {
            return Err(Refusal::BadSdp("this is no SDP".to_owned()));
        }
        if state.published.contains_key(name) {
            return Err(Refusal::NameInUse);
        }
        state.count += 1;
        let resource = format!("publishing{}", state.count);
        state.published.insert(name.clone(), resource.clone());
        Ok(Accepted { resource, answer: format!("answer to {sdp}") })
    }

    fn restart_publishing(
        &self,
        resource: &str,
        _: &Principal,
        sdp: &str,
    ) -> Result<String, Refusal> {
        let known = self.state().published.values().any(|known| known == resource);
        if known { Ok(format!("answer to {sdp}")) } else { Err(Refusal::NotFound) }
    }

    fn close_publishing(&self, resource: &str) {
        self.state().closed.insert(resource.to_owned());
    }

    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal> {
        assert_eq!(who.room.as_deref(), Some("lobby"), "a credential of this room");
        Ok(IceConfig {
            urls: vec!["turn:gw.example:3478?transport=udp".to_owned()],
            username: format!("600:k1.{}", who.subject),
            credential: "password".to_owned(),
            ttl: 600,
            expires_at: 600,
            lifetime: 43_200,
        })
    }

    fn open_playing(&self, _: &Principal, room: &str) -> Result<PlayingId, Refusal> {
        assert_eq!(room, "lobby");
        let mut state = self.state();
        state.refused()?;
        state.count += 1;
        let id = PlayingId(format!("playing{}", state.count));
        state.playing.insert(id.clone(), Connection::default());
        Ok(id)
    }

    fn subscribe_playing(
        &self,
        playing: &PlayingId,
        streams: Vec<StreamName>,
    ) -> Result<Option<PlayOffer>, Refusal> {
        let mut state = self.state();
        state.refused()?;
        state.connection(playing)?.streams = streams;
        state.offer(playing)
    }

    fn answer_playing(
        &self,
        playing: &PlayingId,
        revision: u32,
        sdp: &str,
    ) -> Result<Option<PlayOffer>, Refusal> {
        let mut state = self.state();
        if sdp == "rubbish" {
            return Err(Refusal::BadSdp("this is no SDP".to_owned()));
        }
        let connection = state.connection(playing)?;
        assert_eq!(revision, connection.revision, "the revision of the connection");
        connection.awaiting = false;
        if connection.dirty { state.offer(playing) } else { Ok(None) }
    }

    fn restart_playing(&self, playing: &PlayingId) -> Result<Option<PlayOffer>, Refusal> {
        let mut state = self.state();
        state.connection(playing)?.awaiting = false;
        state.offer(playing)
    }

    fn close_playing(&self, playing: &PlayingId) {
        self.state().playing.remove(playing);
    }

    fn steer_playing(
        &self,
        playing: &PlayingId,
        stream: &StreamName,
        track: u8,
        wish: Wish,
    ) -> Result<(), Refusal> {
        let mut state = self.state();
        let connection = state.connection(playing)?;
        // As with a real one: what was offered and not answered cannot be steered yet.
        if connection.awaiting || !connection.streams.contains(stream) {
            return Err(Refusal::NotFound);
        }
        state.steered.push((stream.stream().to_owned(), track, wish));
        Ok(())
    }

    fn estimate_of(&self, _: &PlayingId) -> Option<u64> {
        self.state().estimate
    }

    fn audio_levels(&self, streams: &[StreamName]) -> Vec<Option<AudioLevel>> {
        let state = self.state();
        streams.iter().map(|stream| state.levels.get(stream).copied()).collect()
    }

    fn streams_of(&self, room: &str) -> Vec<StreamInfo> {
        let live = self.state().live.clone();
        live.into_iter().filter(|info| info.name.room() == room).collect()
    }
}

/// What a token says.
#[derive(Clone)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    pub(crate) jti: String,
    pub(crate) publish: Vec<&'static str>,
    pub(crate) play: Vec<&'static str>,
    pub(crate) chat: bool,
    pub(crate) data: bool,
    pub(crate) admin: bool,
}

impl Claims {
    /// Everything in the lobby.
    pub(crate) fn all(subject: &str) -> Self {
        let (publish, play) = (vec!["lobby/*"], vec!["lobby/*"]);
        let (subject, jti) = (subject.to_owned(), format!("token of {subject}"));
        Self { subject, jti, publish, play, chat: true, data: true, admin: true }
    }

    /// To publish and to play, and no more.
    pub(crate) fn plain(subject: &str) -> Self {
        Self { chat: false, data: false, admin: false, ..Self::all(subject) }
    }

    pub(crate) fn token(&self, keys: &TokenKeys, now: Unix) -> String {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let request = TokenRequest {
            subject: Some(self.subject.clone()),
            publish: own(&self.publish),
            play: own(&self.play),
            chat: self.chat,
            data: self.data,
            admin: self.admin,
            ttl: Duration::from_secs(3_600),
        };
        keys.mint(now, &request, &self.jti).expect("minted")
    }

    pub(crate) fn grant(&self) -> Grant {
        let key = Key { id: "k".to_owned(), secret: b"32 bytes of no importance at all".to_vec() };
        let keys = TokenKeys::new(vec![key]).expect("a good ring");
        let now = Unix::from_secs(1_800_000_000);
        keys.verify(now, &self.token(&keys, now)).expect("valid")
    }
}

/// One room, and its clock.
pub(crate) struct Hall {
    pub(crate) room: Room,
    pub(crate) media: Arc<FakeMedia>,
    pub(crate) now: Now,
    fresh: u32,
}

/// One participant's connection.
pub(crate) struct Guest {
    pub(crate) at: Attached,
    pub(crate) outbox: Outbox,
    pub(crate) claims: Claims,
    pub(crate) resume: String,
    pub(crate) joined: Value,
}

impl Guest {
    pub(crate) fn id(&self) -> &str {
        self.at.participant()
    }

    /// All that was said since; a close is `{"close": code}`.
    pub(crate) fn hears(&self) -> Vec<Value> {
        let mut heard = Vec::new();
        while let Some(item) = self.outbox.take() {
            match item {
                Item::Text(text) => heard.push(from_server(&text)),
                Item::Close(why) => {
                    heard.push(json!({"close": why.code()}));
                    break;
                }
            }
        }
        heard
    }

    /// All that was said since, each by its type.
    pub(crate) fn types(&self) -> Vec<String> {
        let kind = |message: &Value| message["type"].as_str().unwrap_or("close").to_owned();
        self.hears().iter().map(kind).collect()
    }
}

impl Default for Hall {
    fn default() -> Self {
        Self::with_places(1_000)
    }
}

impl Hall {
    pub(crate) fn with_places(places: usize) -> Self {
        let media = Arc::new(FakeMedia::default());
        let room = Room::new("lobby", Arc::clone(&media) as _, Arc::new(Semaphore::new(places)), 7);
        let now = Now { mono: Mono::from_nanos(1), unix: Unix::from_secs(1_800_000_000) };
        Self { room, media, now, fresh: 0 }
    }

    pub(crate) fn try_join(
        &mut self,
        claims: &Claims,
        start: Start,
        resume: Option<&str>,
    ) -> Result<Guest, Refused> {
        self.fresh += 1;
        let fresh = format!("freshResumeToken{}", self.fresh);
        let outbox = Outbox::default();
        let joining = Joining {
            id: Some(1),
            grant: claims.grant(),
            name: claims.subject.clone(),
            subscribe: start,
            resume: resume.map(str::to_owned),
            fresh: fresh.clone(),
        };
        let at = self.room.join(self.now, joining, &outbox)?;
        let Some(Item::Text(text)) = outbox.take() else { panic!("nothing is said") };
        let joined = from_server(&text);
        assert_eq!(joined["type"], "joined");
        assert_eq!(joined["resume"], fresh.as_str());
        Ok(Guest { at, outbox, claims: claims.clone(), resume: fresh, joined })
    }

    pub(crate) fn join(&mut self, claims: &Claims) -> Guest {
        self.try_join(claims, Start::All, None).expect("let in")
    }

    pub(crate) fn resume(&mut self, guest: &Guest) -> Result<Guest, Refused> {
        self.try_join(&guest.claims, Start::All, Some(&guest.resume))
    }

    /// Says something that the schema allows; a `join` is not for here.
    pub(crate) fn say(&mut self, guest: &Guest, message: &Value) {
        self.say_anything(guest, &from_client(message));
    }

    pub(crate) fn say_anything(&mut self, guest: &Guest, text: &str) {
        match Request::read(text) {
            Ok(request) => self.room.handle(self.now, &guest.at, request),
            Err(Unread::Bad(id, fault)) => self.room.on_fault(self.now, &guest.at, id, fault),
            Err(Unread::NotJson) => panic!("not JSON: {text}"),
        }
    }

    /// Says something and returns its one reply.
    pub(crate) fn ask(&mut self, guest: &Guest, mut message: Value) -> Value {
        message["id"] = json!(77);
        self.say(guest, &message);
        let mut replies = guest.hears();
        replies.retain(|reply| reply["id"] == 77);
        assert_eq!(replies.len(), 1, "one reply to {message}: {replies:?}");
        replies.remove(0)
    }

    /// The code of the error that comes of a message.
    pub(crate) fn fault(&mut self, guest: &Guest, message: Value) -> String {
        let reply = self.ask(guest, message);
        assert_eq!(reply["type"], "error", "{reply}");
        reply["code"].as_str().expect("a code").to_owned()
    }

    pub(crate) fn event(&mut self, event: &StreamEvent) {
        self.room.on_event(self.now.mono, event);
    }

    /// A publisher outside the room, by WHIP.
    pub(crate) fn whip(&mut self, stream: &str) {
        let event = self.media.start(camera(stream));
        self.event(&event);
    }

    /// A stream is over, and its publisher's session.
    pub(crate) fn end(&mut self, stream: &str) {
        let resource = self.media.resource_of(stream);
        let event = self.media.end(stream);
        self.event(&event);
        if let Some(resource) = resource {
            self.event(&StreamEvent::SessionEnded { resource });
        }
    }

    /// Publishes and connects.
    pub(crate) fn publish(&mut self, guest: &Guest, stream: &str) {
        let reply = self.ask(guest, json!({"type": "publish", "stream": stream, "sdp": "offer"}));
        assert_eq!(reply["type"], "published", "{reply}");
        let event = self.media.start(camera(stream));
        self.event(&event);
    }

    /// Time passes, a tick at a time.
    pub(crate) fn wait(&mut self, for_: Duration) {
        let step = Duration::from_millis(500);
        for _ in 0..for_.as_millis() / step.as_millis() {
            self.now = self.now.advanced(step);
            self.room.handle_timeout(self.now);
        }
    }

    pub(crate) fn disconnect(&mut self, guest: &Guest) {
        self.room.on_disconnected(self.now.mono, &guest.at);
    }

    /// Answers an offer.
    pub(crate) fn answer(&mut self, guest: &Guest, offer: &Value) {
        let revision = &offer["revision"];
        let answer = json!({"type": "answer", "revision": revision, "sdp": "answer"});
        self.say(guest, &answer);
    }
}

/// The only message of a type.
pub(crate) fn only<'a>(heard: &'a [Value], kind: &str) -> &'a Value {
    let mut found = heard.iter().filter(|message| message["type"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind} in {heard:#?}"));
    assert!(found.next().is_none(), "more than one {kind} in {heard:#?}");
    first
}

pub(crate) fn join_message(token: &str, resume: Option<&str>) -> Value {
    let mut message =
        json!({"type": "join", "id": 1, "token": token, "room": "lobby", "name": "Ada"});
    if let Some(resume) = resume {
        message["resume"] = json!(resume);
    }
    message
}

/// Whether a text is read as a `join`.
pub(crate) fn is_join(text: &str) -> Option<Join> {
    match Request::read(text) {
        Ok(Request { body: Body::Join(join), .. }) => Some(join),
        _ => None,
    }
}
