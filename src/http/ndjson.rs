//! A stream of documents, one a line, of any length.

use std::io;

use axum::body::Body;
use futures_util::TryStreamExt;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::app::App;
use super::body::{broken, parse, too_large};
use super::documents::Writer;
use super::problem::{Problem, Reason};
use crate::corpus::Document;

/// Writes the documents of a stream. The first wrong line ends it: every line before it is written, and the problem's
/// members `line` and `written` say so. A write that fails says only how many documents were written before.
pub(super) async fn write(body: Body, writer: &mut Writer<'_>, app: &App) -> Result<(), Problem> {
    let mut reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let mut line = Vec::new();
    let mut number = 0_u64;
    let ended = loop {
        number += 1;
        if app.stopping() {
            break Err(Problem::stopping());
        }
        let document = match next_document(&mut reader, &mut line, app.settings().max_body_bytes).await {
            Ok(None) => break Ok(()),
            Ok(Some(Line::Blank)) => continue,
            Ok(Some(Line::Document(document))) => document,
            Err(problem) => break Err(problem),
        };
        writer.push(document).await?;
    };
    writer.flush().await?;
    ended.map_err(|problem| {
        problem.within(format_args!("line {number}")).with("line", number).with("written", writer.written())
    })
}

enum Line {
    Blank,
    Document(Document),
}

async fn next_document<R>(reader: &mut R, line: &mut Vec<u8>, limit: usize) -> Result<Option<Line>, Problem>
where
    R: AsyncBufRead + Unpin,
{
    line.clear();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = reader.take(most).read_until(b'\n', line).await.map_err(broken)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > limit {
        return Err(too_large("the line", limit));
    }
    if line.trim_ascii().is_empty() {
        return Ok(Some(Line::Blank));
    }
    let document: Document = parse(line)?;
    document.check().map_err(|error| Problem::new(Reason::InvalidField, error.to_string()))?;
    Ok(Some(Line::Document(document)))
}
