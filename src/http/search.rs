//! `/search`: the one thing that everything else is for.

use std::time::Instant;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::account::{Asked, Searched};
use super::answer::Answer;
use super::app::App;
use super::body::{JsonBody, parse};
use super::hit::{DEFAULT_PARTS, Part, SearchAnswer};
use super::parameters::Parameters;
use super::problem::Problem;
use crate::corpus::{Filter, FilterError, Split};
use crate::generation::SearchRequest;
use crate::settings::Settings;

const DEFAULT_K: usize = 10;
/// Hits of all queries of a request together, in multiples of `max_hits`.
const BATCH_HITS: usize = 10;
const MOST_EXAMPLES: usize = 100;

/// A search; exactly one of `query` and `queries` is given.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SearchBody {
    /// What is asked.
    #[schema(min_length = 1, example = "find files larger than 100 MB")]
    query: Option<String>,
    /// Several questions, answered by the same generation.
    #[schema(min_items = 1)]
    queries: Option<Vec<String>>,
    /// Hits wanted; 10 by default.
    #[schema(example = 10, minimum = 1, default = 10)]
    k: Option<usize>,
    /// Hits skipped from the top.
    #[schema(default = 0)]
    offset: Option<usize>,
    /// Only documents whose metadata match: `{"lang": "en"}`, `{"lang": ["en", "de"]}`,
    /// `{"year": {"gte": 2019, "lt": 2024}}`, `{"and": […]}`, `{"or": […]}`, `{"not": {…}}`.
    #[schema(value_type = Option<Object>, example = json!({"lang": "en"}))]
    filter: Option<Value>,
    /// Compare with every vector instead of walking the graph.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Candidates that the graph walk keeps; more is slower and finds more.
    #[schema(minimum = 1)]
    ef: Option<usize>,
    /// Hits below this score are left out.
    min_score: Option<f64>,
    /// What a hit holds beside id and score; title, text and metadata by default.
    include: Option<Vec<Part>>,
}

/// The same search as a query string.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParameters {
    /// What is asked.
    #[param(min_length = 1, example = "find files larger than 100 MB")]
    q: String,
    /// Hits wanted; 10 by default.
    #[param(minimum = 1, default = 10)]
    k: Option<usize>,
    /// Hits skipped from the top.
    offset: Option<usize>,
    /// A filter as JSON.
    filter: Option<String>,
    /// Compare with every vector instead of walking the graph.
    exact: Option<bool>,
    /// Candidates that the graph walk keeps.
    #[param(minimum = 1)]
    ef: Option<usize>,
    /// Hits below this score are left out.
    min_score: Option<f64>,
    /// Parts of a hit, separated by commas: title, text, metadata, vector; empty for none.
    include: Option<String>,
}

/// How many example queries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExampleParameters {
    /// 1 to 100; 6 by default.
    #[param(minimum = 1, maximum = 100, default = 6)]
    limit: Option<usize>,
}

/// Queries to try.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Examples {
    /// Empty where the corpus came without queries.
    queries: Vec<String>,
}

/// Search
///
/// One query answers with `hits`, several with `results`; all are answered by the same generation.
#[utoipa::path(
    post,
    path = "/search",
    tag = "search",
    request_body = SearchBody,
    responses((status = 200, description = "The hits, best first", body = SearchAnswer))
)]
pub(super) async fn post(
    State(app): State<App>,
    JsonBody(body): JsonBody<SearchBody>,
) -> Result<Answer<SearchAnswer>, Problem> {
    answer(&app, body).await
}

/// Search by a query string
#[utoipa::path(
    get,
    path = "/search",
    tag = "search",
    params(SearchParameters),
    responses((status = 200, description = "The hits, best first", body = SearchAnswer))
)]
pub(super) async fn get(
    State(app): State<App>,
    Parameters(parameters): Parameters<SearchParameters>,
) -> Result<Answer<SearchAnswer>, Problem> {
    answer(&app, parameters.try_into()?).await
}

/// Queries to try
///
/// A few queries of the dev split of the imported judgments.
#[utoipa::path(
    get,
    path = "/search/examples",
    tag = "search",
    params(ExampleParameters),
    responses((status = 200, description = "The texts of the queries", body = Examples))
)]
pub(super) async fn examples(
    State(app): State<App>,
    Parameters(parameters): Parameters<ExampleParameters>,
) -> Result<Answer<Examples>, Problem> {
    let limit = parameters.limit.unwrap_or(6);
    if !(1..=MOST_EXAMPLES).contains(&limit) {
        return Err(Problem::field("limit", format_args!("{limit} is not within 1 to {MOST_EXAMPLES}")));
    }
    let queries = app.blocking(move |retriever| retriever.store().sample_queries(Split::Dev, limit)).await?;
    Ok(Answer::new(Examples { queries: queries.into_iter().map(|query| query.text).collect() }))
}

/// The path that every search takes.
async fn answer(app: &App, body: SearchBody) -> Result<Answer<SearchAnswer>, Problem> {
    let batch = body.queries.is_some();
    let parts = body.include.clone().unwrap_or_else(|| DEFAULT_PARTS.to_vec());
    let request = body.check(app.settings())?;
    let (asked, began) = (asked(&request, app.settings()), Instant::now());
    let response = app.retriever()?.search(request).await?;
    let searched = Searched { began, times: response.times, asked };
    let answer = Answer::from_search(response.generation, searched, SearchAnswer::new(response, batch, &parts));
    Ok(answer.at_most(app.settings().max_answer_bytes))
}

/// What the log of slow queries tells of a request.
fn asked(request: &SearchRequest, settings: &Settings) -> Asked {
    Asked {
        queries: request.queries.len(),
        chars: request.queries.iter().map(|query| query.chars().count()).sum(),
        text: settings.log_queries.then(|| request.queries.join("\n")),
        k: request.k,
        offset: request.offset,
        filtered: request.filter.is_some(),
        exact: request.exact,
    }
}

impl SearchBody {
    /// The request that the body stands for, or the rule that it breaks.
    fn check(self, settings: &Settings) -> Result<SearchRequest, Problem> {
        let (field, queries) = match (self.query, self.queries) {
            (Some(query), None) => ("query", vec![query]),
            (None, Some(queries)) => ("queries", queries),
            (Some(_), Some(_)) => return Err(Problem::field("queries", "give `query` or `queries`, not both")),
            (None, None) => return Err(Problem::field("query", "missing; give `query` or `queries`")),
        };
        check_queries(field, &queries, settings)?;
        let (k, offset) = (self.k.unwrap_or(DEFAULT_K), self.offset.unwrap_or(0));
        check_hits(k, offset, queries.len(), settings)?;
        if let Some(ef) = self.ef.filter(|ef| !(1..=settings.max_hits).contains(ef)) {
            return Err(Problem::field("ef", format_args!("{ef} is not within 1 to {} (max_hits)", settings.max_hits)));
        }
        let min_score = match self.min_score {
            Some(score) if !(score as f32).is_finite() => {
                return Err(Problem::field("min_score", format_args!("{score} is not a finite number of 32 bits")));
            }
            score => score.map(|score| score as f32),
        };
        let filter = self.filter.as_ref().map(Filter::parse).transpose();
        Ok(SearchRequest {
            queries,
            k,
            offset,
            filter: filter.map_err(filter_problem)?,
            exact: self.exact.unwrap_or(false),
            ef: self.ef,
            min_score,
            with_vectors: self.include.is_some_and(|parts| parts.contains(&Part::Vector)),
        })
    }
}

fn filter_problem(error: FilterError) -> Problem {
    match error.path.as_str() {
        "" => Problem::field("filter", error.rule),
        path => Problem::field(format!("filter.{path}"), error.rule),
    }
}

fn check_queries(field: &str, queries: &[String], settings: &Settings) -> Result<(), Problem> {
    let (most, most_chars) = (settings.max_batch, settings.max_query_chars);
    if queries.is_empty() {
        return Err(Problem::field(field, "empty; give at least one query"));
    }
    if queries.len() > most {
        return Err(Problem::field(field, format_args!("{} queries, at most {most} (max_batch)", queries.len())));
    }
    for (position, query) in queries.iter().enumerate() {
        let place = || if field == "query" { field.to_owned() } else { format!("{field}[{position}]") };
        if query.trim().is_empty() {
            return Err(Problem::field(place(), "empty; say what is searched"));
        }
        if query.len() > most_chars && query.chars().count() > most_chars {
            return Err(Problem::field(place(), format_args!("longer than {most_chars} characters (max_query_chars)")));
        }
    }
    Ok(())
}

fn check_hits(k: usize, offset: usize, queries: usize, settings: &Settings) -> Result<(), Problem> {
    let most = settings.max_hits;
    if k == 0 {
        return Err(Problem::field("k", "0; ask for at least one hit"));
    }
    let depth = k.saturating_add(offset);
    if depth > most {
        let field = if k > most { "k" } else { "offset" };
        return Err(Problem::field(field, format_args!("k + offset = {depth}, at most {most} (max_hits)")));
    }
    let most = most.saturating_mul(BATCH_HITS);
    if depth.saturating_mul(queries) > most {
        let rule = format_args!("{queries} queries of k + offset = {depth} are more than {most} hits; ask for fewer");
        return Err(Problem::field("k", rule).with("limit", most));
    }
    Ok(())
}

impl TryFrom<SearchParameters> for SearchBody {
    type Error = Problem;

    fn try_from(parameters: SearchParameters) -> Result<Self, Problem> {
        let filter = parameters.filter.map(|text| parse(text.as_bytes()).map_err(|problem| problem.within("filter")));
        // An empty list, as `include=` writes it, holds nothing.
        let names = |list: String| list.split(',').filter(|_| !list.is_empty()).map(part).collect();
        let include = parameters.include.map(names);
        Ok(Self {
            query: Some(parameters.q),
            queries: None,
            k: parameters.k,
            offset: parameters.offset,
            filter: filter.transpose()?,
            exact: parameters.exact,
            ef: parameters.ef,
            min_score: parameters.min_score,
            include: include.transpose()?,
        })
    }
}

fn part(name: &str) -> Result<Part, Problem> {
    let name = name.trim();
    let part = serde_json::from_value(Value::from(name));
    part.map_err(|_| Problem::field("include", format_args!("`{name}` is not one of title, text, metadata, vector")))
}
