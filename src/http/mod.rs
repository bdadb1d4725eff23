//! The REST API, one file a resource; problem details, keys, OpenAPI, the web page.
//!
//! A request passes, from the outside in: `envelope` (request id, log, trace, metrics, problem details), the catcher of
//! panics, `deadline`, then the guard of its route (`keys`, a bound on the requests under way), then its handler. A
//! handler answers with an `Answer` or a `Problem`; both are turned into bytes in one place.

mod account;
mod admin;
mod answer;
mod app;
mod body;
mod deadline;
mod documents;
mod embed;
mod envelope;
mod error;
mod feedback;
mod generations;
mod health;
mod hit;
mod host;
mod jobs;
mod keys;
mod ndjson;
mod openai;
mod openapi;
mod outlook;
mod page;
mod parameters;
mod problem;
mod request_id;
mod router;
mod search;
mod serve;

pub use app::App;
pub use error::Error;
pub use keys::check_listen;
pub use router::router;
pub use serve::serve;

#[cfg(test)]
mod tests;
