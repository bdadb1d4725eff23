//! Traces: spans of requests and of the stages of searches, sent to a collector over OTLP (HTTP, protobuf).
//!
//! A request's spans are written when it ends, from what its log line tells too: a server without a collector pays
//! nothing for them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Request, Response, Uri};
use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

/// Where a collector takes traces, by the protocol's default.
const PATH: &str = "/v1/traces";
/// A collector that takes longer is one that failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to a collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A request that ended, as its span tells it.
#[derive(Debug)]
pub struct Traced<'a> {
    /// `POST /search`.
    pub name: String,
    /// The span of the client, from its headers.
    pub parent: &'a Context,
    /// When it came.
    pub started: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What else is known of it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, where that is the server's fault.
    pub failure: Option<String>,
    /// Its stages, one after the other, each with its time.
    pub stages: Vec<(&'static str, Duration)>,
    /// When the first stage began, counted from the start.
    pub stages_after: Duration,
}

impl Traces {
    /// Starts the thread that sends spans. `endpoint` is `http://HOST:PORT`, with a path where that is not
    /// `/v1/traces`; `share` of the requests are traced, and all whose client says so.
    ///
    /// # Errors
    /// An endpoint that is not an address of HTTP.
    pub fn open(endpoint: &str, share: f64) -> Result<Self, String> {
        let failed = |reason: String| format!("otlp_endpoint `{endpoint}`: {reason}");
        let uri: Uri = endpoint.parse().map_err(|error| failed(format!("{error}")))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(failed("give http://HOST:PORT; a collector beside the server takes it on to elsewhere".into()));
        }
        let address =
            if uri.path() == "/" { format!("{}{PATH}", endpoint.trim_end_matches('/')) } else { endpoint.into() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new())
            .with_endpoint(address)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name("anced")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(resource)
            .build();
        Ok(Self { tracer: provider.tracer("anced"), provider })
    }

    /// What the client says of the trace that its request belongs to (`traceparent`).
    pub fn parent(&self, headers: &HeaderMap) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
    }

    /// Hands over the spans of a request; returns the trace's id, none where it is not traced.
    pub fn record(&self, traced: Traced<'_>) -> Option<String> {
        let Traced { name, parent, started, took, attributes, failure, stages, stages_after } = traced;
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_start_time(started);
        let mut span = self.tracer.build_with_context(builder.with_attributes(attributes), parent);
        if !span.is_recording() {
            return None;
        }
        if let Some(failure) = failure {
            span.set_status(Status::error(failure));
        }
        let id: SpanContext = span.span_context().clone();
        let above = Context::new().with_remote_span_context(id.clone());
        let mut begins = started + stages_after;
        for (stage, took) in stages {
            let builder = self.tracer.span_builder(stage).with_kind(SpanKind::Internal).with_start_time(begins);
            begins += took;
            self.tracer.build_with_context(builder, &above).end_with_timestamp(begins);
        }
        span.end_with_timestamp(started + took);
        Some(id.trace_id().to_string())
    }

    /// Sends what is left. Blocking, for some seconds where the collector does not answer.
    pub fn close(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sends spans from the thread that gathers them. That a collector does not answer is told to the log once, not for
/// every batch.
#[derive(Debug)]
struct Client {
    agent: ureq::Agent,
    is_failing: AtomicBool,
}

impl Client {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Self { agent: config.build().into(), is_failing: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let (parts, mut body) = self.agent.run(Request::from_parts(parts, &body[..]))?.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }

    fn tell(&self, failure: Option<String>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::AcqRel);
        match failure {
            Some(reason) if !was_failing => tracing::warn!(reason, "the collector takes no traces"),
            None if was_failing => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sent = self.send(request);
        self.tell(match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        });
        Box::pin(std::future::ready(sent.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

    use super::*;

    #[test]
    fn only_addresses_of_http_are_taken() {
        for wrong in ["", "collector", "https://collector:4318", "grpc://collector:4317", "http://"] {
            let error = Traces::open(wrong, 1.0).unwrap_err();
            assert!(error.starts_with(&format!("otlp_endpoint `{wrong}`: ")), "{error}");
        }
        Traces::open("http://127.0.0.1:4318", 1.0).unwrap();
    }
}
