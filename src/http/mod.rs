//! The REST API, one file a resource; problem details, keys, OpenAPI, the web page.
//!
//! A connection gets one of the `places`, TLS where it is set, and a `pulse` that cuts it where its client is too slow. A
//! request passes, from the outside in: `envelope` (request id, log, trace, metrics, problem details), `origin`,
//! `head` and `host`, the catcher of panics, `deadline`, then the guard of its route (`keys`, then `admission`: its body and
//! a place among those at work), then its handler. A handler answers with an `Answer` or a `Problem`; both are turned into bytes in one place.

mod account;
mod admin;
mod admission;
mod answer;
mod app;
mod body;
mod connection;
mod deadline;
mod documents;
mod embed;
mod envelope;
mod error;
mod feedback;
mod generations;
mod head;
mod health;
mod hit;
mod host;
mod jobs;
mod keys;
mod ndjson;
mod openai;
mod openapi;
mod origin;
mod outgoing;
mod outlook;
mod pace;
mod page;
mod parameters;
mod places;
mod problem;
mod pulse;
mod request_id;
mod router;
mod search;
mod serve;
mod timed;
mod tls;

pub use app::App;
pub use error::Error;
pub use keys::check_listen;
pub use router::router;
pub use serve::serve;

#[cfg(test)]
mod tests;
