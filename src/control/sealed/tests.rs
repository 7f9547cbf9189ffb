use std::collections::HashSet;

use super::*;

const OFFER: &str = include_str!("../../../tests/data/sdp/node-datachannel-0.33.4-datachannel.sdp");
const RELAYED: &str = "203.0.113.9:5000";

/// A data plane whose clock and addresses a test sets.
#[derive(Clone, Default)]
struct Fake {
    now: Arc<Mutex<Mono>>,
    live: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl Plane for Fake {
    fn is_room_address(&self, address: SocketAddr, _: RoomHash) -> bool {
        self.live.lock().unwrap().contains(&address)
    }

    fn now(&self) -> Mono {
        *self.now.lock().unwrap()
    }
}

impl Fake {
    fn live() -> Self {
        let fake = Self::default();
        fake.live.lock().unwrap().insert(RELAYED.parse().unwrap());
        fake
    }

    fn pass(&self, seconds: u64) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus(Duration::from_secs(seconds));
    }
}

fn who(subject: &str) -> Principal {
    Principal { subject: subject.to_owned(), room: None, jti: "j".to_owned() }
}

fn sdp(setup: &str) -> String {
    let line = "a=candidate:9 1 UDP 41 203.0.113.9 5000 typ relay raddr 10.0.0.1 rport 9\r\n";
    let text = OFFER.replace("a=setup:actpass", &format!("a=setup:{setup}"));
    text.replace("a=mid:0\n", &format!("a=mid:0\r\n{line}"))
        .replace("a=mid:0\r\n", &format!("a=mid:0\r\n{line}"))
}

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn first_offers_second_answers_and_a_third_finds_no_seat() {
    let sealed = Sealed::new(Fake::live());
    let (alice, bob) = (who("alice"), who("bob"));
    let first = sealed.join("attic", &alice).unwrap();
    let second = sealed.join("attic", &bob).unwrap();
    assert_eq!((first.role, second.role), (Role::Offerer, Role::Answerer));
    assert_eq!(sealed.join("attic", &who("carol")), Err(Refusal::RoomFull));
    assert_eq!(sealed.join("cellar", &bob).unwrap().role, Role::Offerer);

    let none = sealed.other("attic", &second.resource, &bob, AT_ONCE).await;
    assert_eq!(none, Ok(None));
    let early = sealed.describe("attic", &second.resource, &bob, &sdp("active")).1;
    assert_eq!(early, Err(Refusal::OfferAwaited));
    for _ in 0..2 {
        let (sifted, done) = sealed.describe("attic", &first.resource, &alice, &sdp("actpass"));
        assert_eq!((sifted.kept, sifted.not_relayed, done), (1, 1, Ok(())));
    }
    let again = sdp("actpass").replace("CAyT", "other");
    let again = sealed.describe("attic", &first.resource, &alice, &again).1;
    assert_eq!(again, Err(Refusal::Described));
    let offer = sealed.other("attic", &second.resource, &bob, AT_ONCE).await.unwrap().unwrap();
    assert!(offer.contains("a=setup:actpass") && !offer.contains("10.78"), "{offer}");
    sealed.describe("attic", &second.resource, &bob, &sdp("active")).1.unwrap();
    let answer = sealed.other("attic", &first.resource, &alice, AT_ONCE).await.unwrap().unwrap();
    assert!(answer.contains("a=setup:active"));
    assert_eq!(sealed.join("attic", &who("carol")), Err(Refusal::RoomFull));

    // Nobody reads from a seat that is not theirs.
    let theirs = sealed.other("attic", &first.resource, &bob, AT_ONCE).await;
    assert_eq!(theirs, Err(Refusal::NoSeat));
    assert_eq!(sealed.leave("attic", &first.resource, Some(&bob)), Err(Refusal::NoSeat));
    sealed.leave("attic", &second.resource, Some(&bob)).unwrap();
    let over = sealed.other("attic", &first.resource, &alice, AT_ONCE).await;
    assert_eq!(over, Err(Refusal::NoSeat));
    assert_eq!(sealed.join("attic", &who("carol")).unwrap().role, Role::Offerer);
}

#[tokio::test]
async fn waiting_ends_with_the_description_or_with_the_call() {
    let sealed = Sealed::new(Fake::live());
    let (alice, bob) = (who("alice"), who("bob"));
    let first = sealed.join("attic", &alice).unwrap();
    let second = sealed.join("attic", &bob).unwrap();
    let waiting = sealed.other("attic", &second.resource, &bob, LONGEST_WAIT);
    let saying = async {
        tokio::task::yield_now().await;
        sealed.describe("attic", &first.resource, &alice, &sdp("actpass")).1
    };
    let (heard, said) = tokio::join!(waiting, saying);
    assert!(said.is_ok() && heard.unwrap().is_some());
    let waiting = sealed.other("attic", &first.resource, &alice, LONGEST_WAIT);
    let watching = sealed.goes_on("attic", &first.resource, &alice, LONGEST_WAIT);
    let leaving = async {
        tokio::task::yield_now().await;
        sealed.leave("attic", &second.resource, None)
    };
    let (heard, over, left) = tokio::join!(waiting, watching, leaving);
    assert_eq!((heard, over, left), (Err(Refusal::NoSeat), Err(Refusal::NoSeat), Ok(())));
}

#[tokio::test]
async fn silent_pages_and_dead_addresses_free_their_room() {
    let plane = Fake::live();
    let sealed = Sealed::new(plane.clone());
    let (alice, bob) = (who("alice"), who("bob"));
    let first = sealed.join("attic", &alice).unwrap();
    sealed.describe("attic", &first.resource, &alice, &sdp("actpass")).1.unwrap();
    for _ in 0..3 {
        plane.pass(59);
        sealed.sweep();
        let waited = sealed.other("attic", &first.resource, &alice, AT_ONCE).await;
        assert_eq!(waited, Ok(None), "asking keeps the seat");
    }
    let second = sealed.join("attic", &bob).unwrap();
    sealed.describe("attic", &second.resource, &bob, &sdp("active")).1.unwrap();
    plane.pass(3_600);
    sealed.sweep();
    assert_eq!(sealed.join("attic", &who("carol")), Err(Refusal::RoomFull), "the call goes on");
    assert_eq!(sealed.rooms().text, 0, "but its texts are gone");
    for seat in &sealed.rooms().by_name["attic"].seats {
        let own = &seat.description.as_ref().unwrap().own;
        assert_eq!(format!("{own:?}"), "Description { sections: [], .. }", "what was read, too");
        assert_eq!(own.candidates().len(), 1, "but for what says that the call goes on");
    }
    plane.live.lock().unwrap().clear();
    assert_eq!(sealed.join("attic", &who("carol")).unwrap().role, Role::Offerer);
    plane.pass(61);
    sealed.sweep();
    assert_eq!((sealed.rooms_in_use(), sealed.rooms().by_subject.len()), (0, 0));
}

#[test]
fn descriptions_without_a_relayed_address_of_the_room_are_refused() {
    let sealed = Sealed::new(Fake::default());
    let alice = who("alice");
    let seat = sealed.join("attic", &alice).unwrap();
    let (sifted, done) = sealed.describe("attic", &seat.resource, &alice, &sdp("actpass"));
    assert_eq!((sifted.kept, sifted.not_relayed, sifted.foreign), (0, 1, 1));
    assert_eq!(done, Err(Refusal::Fault(Fault::NoRelayCandidate)));
}

#[test]
fn rooms_seats_and_texts_are_bounded() {
    let sealed = Sealed::new(Fake::live());
    for n in 0..MAX_PER_SUBJECT {
        sealed.join(&format!("r{n}"), &who("alice")).unwrap();
    }
    assert_eq!(sealed.join("one-more", &who("alice")), Err(Refusal::SubjectFull));
    for n in MAX_PER_SUBJECT..MAX_ROOMS - 1 {
        sealed.join(&format!("r{n}"), &who(&format!("s{n}"))).unwrap();
    }
    let yann = who("yann");
    let seat = sealed.join("last", &yann).unwrap();
    sealed.rooms().text = MAX_TEXT;
    let full = sealed.describe("last", &seat.resource, &yann, &sdp("actpass")).1;
    assert_eq!(full, Err(Refusal::Full));
    sealed.rooms().text = 0;
    sealed.describe("last", &seat.resource, &yann, &sdp("actpass")).1.unwrap();
    assert_eq!(sealed.join("one-more", &who("zoe")), Err(Refusal::Full));
    assert_eq!(sealed.join("r0", &who("zoe")).unwrap().role, Role::Answerer);
}
