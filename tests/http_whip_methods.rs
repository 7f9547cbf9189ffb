//! What WHIP and WHEP say besides 201: discovery, whole-offer errors, waiting and being full.

mod http_support;

use axum::http::StatusCode;
use http_support::*;
use veilgate::control::api::Refusal;

#[tokio::test]
async fn get_and_head_of_an_endpoint_are_empty_and_need_a_token() {
    for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
        for method in ["GET", "HEAD"] {
            let fake = Fake::default();
            let bearer = format!("Bearer {}", lobby());
            let asked = bare(method, path, &[("authorization", &bearer)]);
            let answer = send(app(&fake), asked).await;
            assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""), "{method}");
            assert_eq!(answer.header("content-type"), "application/sdp");
            assert_eq!(answer.header("accept-post"), "application/sdp");
            let answer = send(app(&fake), bare(method, path, &[])).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert!(fake.calls().is_empty());
        }
    }
}

#[tokio::test]
async fn get_and_head_of_a_session_tell_nothing() {
    for path in [format!("/whip/session/{RESOURCE}"), "/whep/session/gone".to_owned()] {
        for method in ["GET", "HEAD"] {
            let answer = send(app(&Fake::default()), bare(method, &path, &[])).await;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
            assert!(answer.headers.get("etag").is_none());
        }
    }
}

#[tokio::test]
async fn a_player_without_a_publisher_gets_409_and_when_to_ask_again() {
    let fake = Fake::refusing(Refusal::NobodyPublishing);
    let answer = send(app(&fake), post("/whep/lobby/cam1", &lobby(), PLAY)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (409, "nobody_publishing"));
    assert_eq!(answer.header("retry-after"), "2");
}

#[tokio::test]
async fn a_full_or_draining_gateway_says_503_and_when_to_ask_again() {
    for refusal in [Refusal::Full, Refusal::Draining] {
        for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
            let fake = Fake::refusing(refusal.clone());
            let answer = send(app(&fake), post(path, &lobby(), PUBLISH)).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.header("retry-after"), "5");
        }
    }
}

/// A player that reads `text` for the codec it lacks.
fn without(codec: &str) -> String {
    PLAY.replace(&format!(" {codec}/"), " x-none/")
}

#[tokio::test]
async fn a_player_without_the_publishers_codec_gets_422_that_names_it() {
    // The fake's publisher sends what Chromium prefers: Opus and VP8.
    for (offer, codec) in [(without("VP8"), "VP8"), (without("opus"), "opus")] {
        let answer = send(app(&Fake::default()), post("/whep/lobby/cam1", &lobby(), offer)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "no_codec"));
        let names = answer.body.to_lowercase().contains(&codec.to_lowercase());
        assert!(names, "{codec} is not in {}", answer.body);
    }
}

#[tokio::test]
async fn an_offer_of_200_m_lines_gets_400_that_says_the_bound() {
    let section = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n";
    let offer = format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{}", section.repeat(200));
    for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
        let answer = send(app(&Fake::default()), post(path, &lobby(), offer.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_sdp"));
        assert!(answer.body.contains("64 m-sections"), "{}", answer.body);
    }
}

/// RFC 9725 section 4.2: the offer is taken or refused as a whole.
#[tokio::test]
async fn one_m_line_without_a_codec_of_ours_refuses_the_whole_offer() {
    let offer = PUBLISH.replace("opus/48000/2", "x-none/48000/2");
    assert_ne!(offer, PUBLISH);
    let answer = send(app(&Fake::default()), post("/whip/lobby/cam1", &lobby(), offer)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "no_codec"));
}
