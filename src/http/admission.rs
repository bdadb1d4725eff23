//! A request's way in: its body first, within the room that there is for bodies, then a place among those at work. And
//! its answer's way out, within the room for answers.
//!
//! So that clients which announce bodies and do not send them, or take large answers slowly, keep nobody out.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::app::App;
use super::body::{MediaType, read};
use super::problem::{Problem, Reason};
use crate::settings::Settings;

/// What room is counted in.
const KIB: usize = 1 << 10;
/// The first so much of a body comes from a room of its own: large bodies keep no search out.
const SMALL_KIB: usize = 64;
/// What there is for the rest of bodies, for each of `max_requests`.
const LARGE_KIB: usize = 192;

/// What there is for answers until they are taken, for each of `max_requests`; small ones are not counted.
const ANSWER_KIB: usize = 512;

/// How many requests may be at work, and what their bodies and their answers may hold in memory.
#[derive(Debug)]
pub(super) struct Doors {
    places: Arc<Semaphore>,
    /// Of those places, the ones for bodies that are worked on while they come.
    streams: Arc<Semaphore>,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    most_answers: usize,
}

impl Doors {
    pub(super) fn new(settings: &Settings) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let most = settings.max_requests;
        let large = most.saturating_mul(LARGE_KIB).max(2 * settings.max_body_bytes.div_ceil(KIB));
        let largest = settings.max_answer_bytes.div_ceil(KIB).saturating_mul(2);
        let most_answers = most.saturating_mul(ANSWER_KIB).max(largest).min(Semaphore::MAX_PERMITS);
        Self {
            places: semaphore(most),
            streams: semaphore(most.div_ceil(2)),
            small: semaphore(most.saturating_mul(SMALL_KIB)),
            large: semaphore(large),
            answers: semaphore(most_answers),
            most_answers,
        }
    }
}

/// What a request holds while it is at work.
pub(super) struct Admitted {
    _place: OwnedSemaphorePermit,
    _stream: Option<OwnedSemaphorePermit>,
    _room: Room,
}

/// Waits for the body of a request and then takes a place for it.
pub(super) async fn admit(app: &App, request: Request) -> Result<(Request, Admitted), Problem> {
    let doors = app.doors();
    if doors.places.available_permits() == 0 {
        return Err(full());
    }
    let kind = MediaType::of(request.headers()).ok();
    let comes = !request.body().is_end_stream();
    let stream = match kind {
        Some(MediaType::NdJson) if comes => Some(doors.streams.clone().try_acquire_owned().map_err(|_| full())?),
        _ => None,
    };
    let mut room = Room::default();
    let mut request = request;
    // One of another type is refused unread.
    if comes && kind == Some(MediaType::Json) && request.method() == Method::POST {
        let body = std::mem::take(request.body_mut());
        let bytes = read(body, app.settings().max_body_bytes, |bytes| room.grow(doors, bytes)).await?;
        *request.body_mut() = Body::from(bytes);
    }
    let place = doors.places.clone().try_acquire_owned().map_err(|_| full())?;
    Ok((request, Admitted { _place: place, _stream: stream, _room: room }))
}

/// The room that an answer has until its last byte has left.
#[derive(Debug, Clone)]
pub(super) struct AnswerRoom {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Takes room for an answer that is not small.
pub(super) fn let_out(app: &App, mut response: Response) -> Response {
    let doors = app.doors();
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(KIB).min(doors.most_answers);
    if wanted <= SMALL_KIB {
        return response;
    }
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    match doors.answers.clone().try_acquire_many_owned(wanted) {
        Ok(permit) => {
            response.extensions_mut().insert(AnswerRoom { _permit: Arc::new(permit) });
            response
        }
        Err(_) => {
            let detail =
                "answers that clients have not taken yet fill the memory for them; ask for less, or again in 1 s";
            Problem::new(Reason::QueueFull, detail).into_response()
        }
    }
}

fn full() -> Problem {
    Problem::new(Reason::QueueFull, "too many requests are under way; try again in 1 s")
}

/// The room that a body has.
#[derive(Debug, Default)]
struct Room {
    bytes: usize,
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn grow(&mut self, doors: &Doors, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        let all = self.bytes.div_ceil(KIB);
        let has_room = fill(&mut self.small, &doors.small, all.min(SMALL_KIB))
            && fill(&mut self.large, &doors.large, all.saturating_sub(SMALL_KIB));
        if has_room {
            return Ok(());
        }
        Err(Problem::new(Reason::QueueFull, "the bodies of other requests fill the memory for them; try again in 1 s"))
    }
}

/// Takes what is missing to so much; false where it cannot be had.
fn fill(held: &mut Option<OwnedSemaphorePermit>, room: &Arc<Semaphore>, wanted: usize) -> bool {
    let missing = wanted - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let Ok(missing) = u32::try_from(missing) else { return false };
    let Ok(more) = room.clone().try_acquire_many_owned(missing) else { return false };
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    true
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::super::tests::app;
    use super::*;

    #[test]
    fn large_answers_that_are_not_taken_leave_small_ones_alone() {
        let app = app(Settings { max_requests: 1, max_answer_bytes: 1 << 20, ..Settings::default() });
        let out = |bytes: usize| let_out(&app, Response::new(Body::from(vec![0; bytes])));
        let mut held = [out(1 << 20), out(1 << 20)];
        assert!(held.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(out((64 << 10) + 1).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(out(64 << 10).status(), StatusCode::OK);
        held[0].extensions_mut().clear();
        assert_eq!(out(1 << 20).status(), StatusCode::OK);
    }

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let doors = Doors::new(&Settings { max_requests: 2, max_body_bytes: 1 << 20, ..Settings::default() });
        let [mut first, mut second, mut third] = [Room::default(), Room::default(), Room::default()];
        assert!(first.grow(&doors, 1).is_ok() && first.grow(&doors, (1 << 20) - 1).is_ok());
        assert!(second.grow(&doors, 1 << 20).is_ok());
        assert_eq!(doors.small.available_permits(), 0);
        assert_eq!(third.grow(&doors, 1).unwrap_err().reason, Reason::QueueFull);
        drop(first);
        let mut third = Room::default();
        assert!(third.grow(&doors, SMALL_KIB * KIB).is_ok(), "a small one");
        assert!(third.grow(&doors, (1 << 20) + 64 * KIB).is_ok(), "the rest of what a large one gave back");
        assert!(third.grow(&doors, 200 * KIB).is_err());
        drop((second, third));
        assert_eq!((doors.small.available_permits(), doors.large.available_permits()), (128, 2048));
    }
}
