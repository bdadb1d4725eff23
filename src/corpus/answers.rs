//! Whether a text contains an answer, by the rule of DPR (Karpukhin et al. 2020, arXiv 2004.04906).
//!
//! Both are brought to NFD and cut into tokens, runs of letters, digits and marks or single other characters that are
//! neither white space nor control; an answer is in a text where its tokens, in lower case, stand there side by side.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;

/// None only if the pattern were none, which a test would show.
static TOKEN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]").ok());

/// The tokens of a text, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Cuts a text.
    pub fn of(text: &str) -> Self {
        let normal: String = text.nfd().collect();
        let tokens = TOKEN.iter().flat_map(|token| token.find_iter(&normal));
        Self(tokens.map(|token| token.as_str().to_lowercase()).collect())
    }
}

/// The answers of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers(Vec<Words>);

impl Answers {
    /// Those that have a token at all: DPR finds an empty answer in every text, which helps nobody.
    pub fn new(answers: &[String]) -> Self {
        Self(answers.iter().map(|answer| Words::of(answer)).filter(|words| !words.0.is_empty()).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a text contains one of them.
    pub fn are_in(&self, text: &Words) -> bool {
        self.0.iter().any(|answer| text.0.windows(answer.0.len()).any(|window| window == answer.0))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn answers(text: &str) -> Answers {
        Answers::new(&[text.to_owned()])
    }

    #[test]
    fn answers_are_whole_words_side_by_side() {
        let text = Words::of("The U.S. Open was held in NEW   York, 1968.");
        for (answer, is_in) in [
            ("new york", true),
            ("New York , 1968", true),
            ("york 1968", false),
            ("yor", false),
            ("u.s. open", true),
            ("us open", false),
            ("", false),
            (" \u{200b}", false),
        ] {
            assert_eq!(answers(answer).are_in(&text), is_in, "{answer}");
        }
        assert!(Answers::new(&["nobody".into(), "1968".into()]).are_in(&text), "one of several is enough");
        assert!(Answers::new(&["".into()]).is_empty() && !answers("a").are_in(&Words::of("")));
    }

    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<String>,
        answers: Vec<String>,
        found: Vec<Vec<String>>,
        tokens: Vec<Vec<String>>,
    }

    /// As `benches/compare/answers.py` finds them.
    #[test]
    fn the_same_answers_are_found_as_in_python() {
        let text = include_str!("../../tests/fixtures/answers/expected.json");
        let expected: Expected = serde_json::from_str(text).unwrap();
        assert!(expected.texts.len() > 10 && expected.answers.len() > 50);
        for (text, (found, tokens)) in expected.texts.iter().zip(expected.found.iter().zip(&expected.tokens)) {
            let words = Words::of(text);
            assert_eq!(&words.0, tokens, "{text}");
            let ours: Vec<&String> = expected.answers.iter().filter(|answer| answers(answer).are_in(&words)).collect();
            assert_eq!(ours, found.iter().collect::<Vec<_>>(), "{text}");
        }
    }
}
