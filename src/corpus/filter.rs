//! Filters over metadata: the language, read from JSON.

use std::fmt;

use serde_json::{Map, Value};

use super::metadata::Scalar;

/// Levels of `and`, `or` and `not` that a filter may have.
const DEPTH: usize = 32;
/// Conditions and values that a filter may hold.
const SIZE: usize = 10_000;

/// Which documents a search may return, by their metadata.
///
/// - `{"lang": "en"}`: the field has this value; an array has it when one of its elements is it.
/// - `{"lang": ["en", "de"]}`: any of these values.
/// - `{"year": {"gte": 2019, "lt": 2024}}`: one value inside the bounds (`gt`, `gte`, `lt`, `lte`), of numbers, or of
///   strings bytewise, as ISO dates need it.
/// - `{"and": […]}`, `{"or": […]}`, `{"not": {…}}`; several keys of one object must all hold; `{}` matches everything.
///
/// Fields of nested objects are written with a dot: `author.name`. Numbers are compared as 64-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub(super) root: Node,
}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// All of these hold.
    And(Vec<Node>),
    /// At least one of these holds.
    Or(Vec<Node>),
    /// This does not hold.
    Not(Box<Node>),
    /// The field has one of these values.
    Any { field: String, values: Vec<Scalar> },
    /// The field has a value inside the bounds.
    Range { field: String, bounds: Bounds },
}

/// The bounds of a range, of one type, at least one of them set; each with whether it belongs to the range.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bounds {
    pub(super) lower: Option<(Scalar, bool)>,
    pub(super) upper: Option<(Scalar, bool)>,
}

impl Bounds {
    /// Whether a value is of the bounds' type and inside.
    pub(super) fn contain(&self, value: &Scalar) -> bool {
        let above = self.lower.as_ref().is_none_or(|(lower, inclusive)| {
            value.compare(lower).is_some_and(|order| order.is_gt() || (*inclusive && order.is_eq()))
        });
        let below = self.upper.as_ref().is_none_or(|(upper, inclusive)| {
            value.compare(upper).is_some_and(|order| order.is_lt() || (*inclusive && order.is_eq()))
        });
        above && below
    }
}

/// A filter that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// Where in the filter, as `and[1].year.gte`; empty for the filter itself.
    pub path: String,
    /// The rule that is broken there.
    pub rule: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(formatter, "filter: {}", self.rule),
            path => write!(formatter, "filter at `{path}`: {}", self.rule),
        }
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// The filter is not an object, holds something that is no condition, or is too deep or too large; the error names
    /// the place and the rule.
    ///
    /// ```
    /// use anced::corpus::Filter;
    /// Filter::parse(&serde_json::json!({"lang": "en", "year": {"gte": 2019}}))?;
    /// let error = Filter::parse(&serde_json::json!({"and": [{"year": {"above": 3}}]})).unwrap_err();
    /// assert_eq!(error.path, "and[0].year.above");
    /// # Ok::<(), anced::corpus::FilterError>(())
    /// ```
    pub fn parse(value: &Value) -> Result<Self, FilterError> {
        let mut parser = Parser { path: Vec::new(), depth: 0, size: 0 };
        Ok(Self { root: parser.node(value)? })
    }
}

struct Parser {
    path: Vec<String>,
    depth: usize,
    size: usize,
}

impl Parser {
    fn refuse<T>(&self, rule: impl Into<String>) -> Result<T, FilterError> {
        let mut path = self.path.concat();
        // Every step but an index starts with a dot; the first one's is not shown.
        if path.starts_with('.') {
            path.remove(0);
        }
        if let Some((end, _)) = path.char_indices().nth(200) {
            path.truncate(end);
            path.push('…');
        }
        Err(FilterError { path, rule: rule.into() })
    }

    fn at<T>(
        &mut self,
        step: String,
        read: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    fn count(&mut self) -> Result<(), FilterError> {
        self.size += 1;
        if self.size > SIZE {
            return self.refuse(format!("the filter holds more than {SIZE} conditions and values"));
        }
        Ok(())
    }

    fn node(&mut self, value: &Value) -> Result<Node, FilterError> {
        let Value::Object(map) = value else {
            return self.refuse(format!("expected an object, as {{\"lang\": \"en\"}}, not {}", kind(value)));
        };
        if self.depth == DEPTH {
            return self.refuse(format!("the filter is nested deeper than {DEPTH} levels"));
        }
        self.depth += 1;
        let mut nodes = Vec::with_capacity(map.len());
        for (name, value) in map {
            self.count()?;
            nodes.push(self.at(format!(".{name}"), |parser| parser.condition(name, value))?);
        }
        self.depth -= 1;
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::And(nodes),
        })
    }

    fn condition(&mut self, name: &str, value: &Value) -> Result<Node, FilterError> {
        match name {
            "and" => Ok(Node::And(self.nodes(value)?)),
            "or" => Ok(Node::Or(self.nodes(value)?)),
            "not" => Ok(Node::Not(Box::new(self.node(value)?))),
            _ => self.field(name, value),
        }
    }

    fn nodes(&mut self, value: &Value) -> Result<Vec<Node>, FilterError> {
        let Value::Array(elements) = value else {
            return self.refuse(format!("expected an array of filters, not {}", kind(value)));
        };
        let mut nodes = Vec::new();
        for (number, element) in elements.iter().enumerate() {
            self.count()?;
            nodes.push(self.at(format!("[{number}]"), |parser| parser.node(element))?);
        }
        Ok(nodes)
    }

    fn field(&mut self, field: &str, value: &Value) -> Result<Node, FilterError> {
        let field = field.to_owned();
        match value {
            Value::Object(map) => Ok(Node::Range { field, bounds: self.bounds(map)? }),
            Value::Array(elements) => {
                let mut values = Vec::new();
                for (number, element) in elements.iter().enumerate() {
                    self.count()?;
                    values.push(self.at(format!("[{number}]"), |parser| parser.scalar(element))?);
                }
                Ok(Node::Any { field, values })
            }
            _ => Ok(Node::Any { field, values: vec![self.scalar(value)?] }),
        }
    }

    fn scalar(&self, value: &Value) -> Result<Scalar, FilterError> {
        match Scalar::of(value) {
            Some(scalar) => Ok(scalar),
            None => self.refuse(format!("expected a string, a number, a boolean or null, not {}", kind(value))),
        }
    }

    fn bounds(&mut self, map: &Map<String, Value>) -> Result<Bounds, FilterError> {
        if map.is_empty() {
            return self.refuse("expected a value, an array of values, or bounds (gt, gte, lt, lte)");
        }
        let mut bounds = Bounds { lower: None, upper: None };
        for (name, value) in map {
            self.at(format!(".{name}"), |parser| parser.bound(name, value, &mut bounds))?;
        }
        if let (Some((lower, _)), Some((upper, _))) = (&bounds.lower, &bounds.upper)
            && lower.compare(upper).is_none()
        {
            return self.refuse("both bounds must be numbers, or both strings");
        }
        Ok(bounds)
    }

    fn bound(&mut self, name: &str, value: &Value, bounds: &mut Bounds) -> Result<(), FilterError> {
        self.count()?;
        let (side, inclusive) = match name {
            "gt" => (&mut bounds.lower, false),
            "gte" => (&mut bounds.lower, true),
            "lt" => (&mut bounds.upper, false),
            "lte" => (&mut bounds.upper, true),
            _ => {
                return self.refuse(
                    "no such bound: use gt, gte, lt or lte; a nested field is written with a dot, as `author.name`",
                );
            }
        };
        if side.is_some() {
            return self.refuse("two bounds on one side: use either gt or gte, either lt or lte");
        }
        match Scalar::of(value) {
            Some(scalar @ (Scalar::Number(_) | Scalar::Text(_))) => {
                *side = Some((scalar, inclusive));
                Ok(())
            }
            _ => self.refuse(format!("expected a number or a string, not {}", kind(value))),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_place_and_the_rule() {
        for (filter, path, rule) in [
            (json!("en"), "", "expected an object"),
            (json!(null), "", "not null"),
            (json!({"and": {"a": 1}}), "and", "array of filters"),
            (json!({"or": [{"a": 1}, 3]}), "or[1]", "expected an object"),
            (json!({"not": [1]}), "not", "expected an object"),
            (json!({"a": {}}), "a", "bounds"),
            (json!({"a": {"b": 1}}), "a.b", "with a dot"),
            (json!({"a": {"gt": null}}), "a.gt", "a number or a string"),
            (json!({"a": {"gt": [1]}}), "a.gt", "a number or a string"),
            (json!({"a": {"gt": 1, "gte": 2}}), "a.gte", "two bounds on one side"),
            (json!({"a": {"gt": 1, "lt": "b"}}), "a", "both bounds"),
            (json!({"a": [1, [2]]}), "a[1]", "expected a string, a number"),
            (json!({"and": [{"or": [{"not": {"x.y": {"lt": true}}}]}]}), "and[0].or[0].not.x.y.lt", "not a boolean"),
            (json!({"a": (0..20_000).collect::<Vec<_>>()}), "a", "more than 10000"),
        ] {
            let error = Filter::parse(&filter).unwrap_err();
            assert_eq!(error.path, path, "{filter}");
            assert!(error.rule.contains(rule), "{filter}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        // Built by hand: `json!` copies what it nests, recursing.
        let not = |inner, _| Value::Object(Map::from_iter([("not".to_owned(), inner)]));
        let nested = |levels| (0..levels).fold(json!({"a": 1}), not);
        assert!(Filter::parse(&nested(31)).is_ok());
        let deep = nested(100_000);
        assert!(Filter::parse(&deep).unwrap_err().rule.contains("deeper than 32"));
        // Dropping it would recurse 100,000 times; it lives until the test process ends.
        std::mem::forget(deep);
    }

    #[test]
    fn several_keys_must_all_hold() {
        let filter = Filter::parse(&json!({"a": 1, "b": {"gt": 2}})).unwrap();
        assert!(matches!(filter.root, Node::And(nodes) if nodes.len() == 2));
        assert_eq!(Filter::parse(&json!({})).unwrap().root, Node::And(Vec::new()));
    }
}
