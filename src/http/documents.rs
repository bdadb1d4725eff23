//! `/documents`: write, read, list and delete.

use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::answer::Answer;
use super::app::App;
use super::body::{JsonBody, MediaType};
use super::deadline::Deadline;
use super::ndjson;
use super::parameters::{DocumentId, Parameters};
use super::problem::{Problem, Reason};
use crate::corpus::{Document, StoredDocument};

/// Documents that are encoded and committed together.
const BATCH_DOCUMENTS: usize = 256;
/// Bytes of text after which a batch is written even if it holds fewer.
const BATCH_BYTES: usize = 4 << 20;
const MOST_LISTED: usize = 1000;

/// A document.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Document, title = "Document")]
#[allow(dead_code)] // describes `corpus::Document` in the OpenAPI document
pub(super) struct DocumentSchema {
    /// Unique in the corpus; 1 to 500 bytes.
    #[schema(min_length = 1, max_length = 500, example = "find-large-files")]
    id: String,
    #[schema(required = false, default = "", example = "Large files")]
    title: String,
    #[schema(required = false, default = "", example = "find . -size +100M")]
    text: String,
    /// Any JSON object; filters read it.
    #[schema(required = false, value_type = Object, example = json!({"lang": "en"}))]
    metadata: Map<String, Value>,
}

/// Documents to write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct DocumentsBody {
    /// At least one; a document whose id is known replaces the old one.
    #[schema(value_type = Vec<DocumentSchema>, min_items = 1)]
    documents: Vec<Document>,
}

/// The receipt of a write: on disk, and found by search.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Written)]
pub(super) struct WrittenAnswer {
    /// Documents taken, unchanged ones included. Where an id comes more than once each counts, and the last one stays.
    #[schema(example = 2)]
    written: usize,
    /// The number of the newest write.
    #[schema(example = 4711)]
    sequence: u64,
}

/// Ids of documents.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct IdsBody {
    /// At least one; unknown ids are passed over.
    #[schema(min_items = 1)]
    ids: Vec<String>,
}

/// The receipt of a deletion.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deleted)]
pub(super) struct DeletedAnswer {
    /// Documents that were there and are gone.
    #[schema(example = 1)]
    deleted: usize,
    /// The number of the newest write.
    #[schema(example = 4712)]
    sequence: u64,
}

/// Where a page of documents begins and how long it is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// The id after which the page begins; the first page by default.
    after: Option<String>,
    /// 1 to 1000; 100 by default.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// A page of documents.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DocumentsPage {
    /// In the order of their ids.
    #[schema(value_type = Vec<DocumentSchema>)]
    documents: Vec<Document>,
    /// `after` of the next page; null on the last one.
    next: Option<String>,
}

/// Write documents
///
/// `application/json` with a list, or `application/x-ndjson` with one document a line, of any length. When the answer
/// comes, the documents are on disk and search finds them. A stream that fails names its line; every line before it is
/// written, and the member `written` counts them.
#[utoipa::path(
    post,
    path = "/documents",
    tag = "documents",
    request_body(content(
        (DocumentsBody = "application/json"),
        (DocumentSchema = "application/x-ndjson")
    )),
    responses((status = 200, description = "Written", body = WrittenAnswer))
)]
pub(super) async fn write(
    State(app): State<App>,
    Extension(deadline): Extension<Deadline>,
    request: Request,
) -> Result<Answer<WrittenAnswer>, Problem> {
    let mut writer = Writer::new(&app, &deadline);
    if MediaType::of(request.headers())? == MediaType::NdJson {
        ndjson::write(request.into_body(), &mut writer, &app).await?;
        return writer.done();
    }
    let JsonBody(body) = JsonBody::<DocumentsBody>::from_request(request, &app).await?;
    for (position, document) in body.documents.iter().enumerate() {
        document.check().map_err(|error| Problem::field(format!("documents[{position}]"), error.rule))?;
    }
    for document in body.documents {
        writer.push(document).await?;
    }
    writer.flush().await?;
    writer.done()
}

/// Read a document
#[utoipa::path(
    get,
    path = "/documents/{id}",
    tag = "documents",
    params(("id" = String, Path, description = "The document's id, percent-encoded")),
    responses(
        (status = 200, description = "The document; its ETag is the number of the write that made it", body = DocumentSchema),
        (status = 404, description = "No such document", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json")
    )
)]
pub(super) async fn read(State(app): State<App>, DocumentId(id): DocumentId) -> Result<Response, Problem> {
    let missing = unknown(&id);
    let stored = app.blocking(move |retriever| retriever.store().document(&id)).await?;
    let Some(StoredDocument { sequence, document }) = stored else { return Err(missing) };
    let mut response = Answer::new(document).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{sequence}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Delete a document
#[utoipa::path(
    delete,
    path = "/documents/{id}",
    tag = "documents",
    params(("id" = String, Path, description = "The document's id, percent-encoded")),
    responses(
        (status = 200, description = "Gone", body = DeletedAnswer),
        (status = 404, description = "No such document", body = super::openapi::ProblemDetails,
            content_type = "application/problem+json")
    )
)]
pub(super) async fn delete(
    State(app): State<App>,
    DocumentId(id): DocumentId,
) -> Result<Answer<DeletedAnswer>, Problem> {
    let missing = unknown(&id);
    let receipt = app.retriever()?.delete(vec![id]).await?;
    match receipt.deleted {
        0 => Err(missing),
        deleted => Ok(Answer::new(DeletedAnswer { deleted, sequence: receipt.sequence })),
    }
}

/// Delete several documents
#[utoipa::path(
    post,
    path = "/documents/delete",
    tag = "documents",
    request_body = IdsBody,
    responses((status = 200, description = "Those that were there are gone", body = DeletedAnswer))
)]
pub(super) async fn delete_many(
    State(app): State<App>,
    JsonBody(body): JsonBody<IdsBody>,
) -> Result<Answer<DeletedAnswer>, Problem> {
    if body.ids.is_empty() {
        return Err(Problem::field("ids", "empty; give at least one id"));
    }
    let receipt = app.retriever()?.delete(body.ids).await?;
    Ok(Answer::new(DeletedAnswer { deleted: receipt.deleted, sequence: receipt.sequence }))
}

/// List documents
///
/// A page of large documents may hold fewer than `limit`; it is the last one only where `next` is null.
#[utoipa::path(
    get,
    path = "/documents",
    tag = "documents",
    params(ListParameters),
    responses((status = 200, description = "A page, in the order of the ids", body = DocumentsPage))
)]
pub(super) async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Answer<DocumentsPage>, Problem> {
    let limit = parameters.limit.unwrap_or(100);
    if !(1..=MOST_LISTED).contains(&limit) {
        return Err(Problem::field("limit", format_args!("{limit} is not within 1 to {MOST_LISTED}")));
    }
    let (after, bytes) = (parameters.after, app.settings().max_answer_bytes);
    let listed = app.blocking(move |retriever| retriever.store().list(after.as_deref(), limit, bytes)).await?;
    let (listed, more) = listed;
    let documents: Vec<_> = listed.into_iter().map(|stored| stored.document).collect();
    let next = documents.last().filter(|_| more).map(|document| document.id.clone());
    Ok(Answer::new(DocumentsPage { documents, next }))
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::new(Reason::UnknownDocument, format!("no document has the id `{id}`"))
}

/// Writes documents in batches, so that neither memory nor one commit grows with the request.
pub(super) struct Writer<'a> {
    app: &'a App,
    deadline: &'a Deadline,
    batch: Vec<Document>,
    bytes: usize,
    written: usize,
    sequence: u64,
}

impl<'a> Writer<'a> {
    fn new(app: &'a App, deadline: &'a Deadline) -> Self {
        Self { app, deadline, batch: Vec::new(), bytes: 0, written: 0, sequence: 0 }
    }

    /// Takes a checked document.
    pub(super) async fn push(&mut self, document: Document) -> Result<(), Problem> {
        self.bytes += document.title.len() + document.text.len();
        self.batch.push(document);
        if self.batch.len() < BATCH_DOCUMENTS && self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Writes what was taken.
    pub(super) async fn flush(&mut self) -> Result<(), Problem> {
        self.deadline.extend();
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let written = self.written;
        let receipt = match self.app.retriever() {
            Ok(retriever) => retriever.write(batch).await.map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        let receipt = receipt.map_err(|problem| problem.with("written", written))?;
        self.written += receipt.written;
        self.sequence = receipt.sequence;
        Ok(())
    }

    /// Documents on disk so far.
    pub(super) fn written(&self) -> usize {
        self.written
    }

    fn done(self) -> Result<Answer<WrittenAnswer>, Problem> {
        if self.written == 0 {
            return Err(Problem::field("documents", "empty; give at least one document"));
        }
        Ok(Answer::new(WrittenAnswer { written: self.written, sequence: self.sequence }))
    }
}
