//! The gate: whether the generation that a run made takes over from the live one.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Error, Event, Listener, Means};
use crate::corpus::Split;
use crate::evaluation::{self, JudgedSplit, Measure, judged_split, measure};
use crate::generation::{DataFolder, Machine, Manifest, Retriever, Standing};

/// Hits a query that are measured.
const DEPTH: usize = 1000;

/// What a new generation must not fall behind in.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    /// What decides.
    pub measure: Measure,
    /// How much lower than the live generation's it may be.
    pub tolerance: f64,
    /// The round that made the new generation, for what is told.
    pub round: u64,
}

/// Whether a generation takes over.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// It does.
    pub published: bool,
    /// Why, in words.
    pub reason: String,
    /// Its measures; none without dev judgments.
    pub new: Option<Means>,
    /// The generation that it was compared with.
    pub live: Option<u64>,
    /// The measures of that one.
    pub live_measures: Option<Means>,
}

impl Gate {
    /// Compares a new generation with the live one on the dev queries, by exact search as both will serve, and writes its
    /// standing and measures to its manifest.
    ///
    /// # Errors
    /// A generation that cannot be loaded, a store that cannot be read, a manifest that cannot be written; an error of
    /// `listener`.
    pub fn judge(
        &self,
        data: &DataFolder,
        number: u64,
        machine: &Machine,
        listener: Listener<'_>,
    ) -> Result<Verdict, Error> {
        let live = data.live()?;
        let folder = data.generation(number);
        let split = match judged_split(data.store(), Split::Dev) {
            Err(evaluation::Error::NoJudgments(_)) => {
                Manifest::judge(&folder, Standing::Ready, BTreeMap::new())?;
                let reason = "published unmeasured: the store has no dev judgments".into();
                return Ok(Verdict { published: true, reason, new: None, live, live_measures: None });
            }
            judged => judged?,
        };
        let (started, round) = (Instant::now(), self.round);
        let queries = split.queries.len() as u64;
        let total = queries * (1 + u64::from(live.is_some()));
        let mut told = |done: u64| listener(Event::Phase { round, phase: "gate", done, total, beside: false });
        told(0)?;
        let new = means(data, number, machine, &split, &mut |done| told(done))?;
        let old = live.map(|live| means(data, live, machine, &split, &mut |done| told(queries + done))).transpose()?;
        let published = old.as_ref().is_none_or(|old| self.value(&new) >= self.value(old) - self.tolerance);
        let measures = new.iter().map(|(measure, value)| (measure.to_string(), *value)).collect();
        Manifest::judge(&folder, if published { Standing::Ready } else { Standing::Rejected }, measures)?;
        listener(Event::Took { round, phase: "gate", seconds: started.elapsed().as_secs_f64(), texts: None })?;
        let reason = self.reason(published, &new, live.zip(old.as_ref()));
        Ok(Verdict { published, reason, new: Some(new), live, live_measures: old })
    }

    fn value(&self, means: &Means) -> f64 {
        means.get(&self.measure).copied().unwrap_or(0.0)
    }

    fn reason(&self, published: bool, new: &Means, old: Option<(u64, &Means)>) -> String {
        let told = format!("{} {:.4}", self.measure, self.value(new));
        let Some((live, old)) = old else { return format!("published: {told}, no generation was live") };
        let word = if published { "published" } else { "rejected: kept, but not made live" };
        format!("{word}: {told}, generation {live} has {:.4}", self.value(old))
    }
}

/// The measures of a generation with every document that is there now, whenever its files were written; `progress` counts
/// queries, from 0 where documents have to be encoded first.
fn means(
    data: &DataFolder,
    number: u64,
    machine: &Machine,
    split: &JudgedSplit,
    progress: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<Means, Error> {
    let retriever = Retriever::new(data.clone(), machine);
    let mut told = Ok(());
    let mut tell = |done: u64| {
        if told.is_ok() {
            told = progress(done);
        }
    };
    retriever.load_number(number, machine, &mut |_| tell(0))?;
    let ranked = &mut |done| tell(done as u64);
    let rankings = evaluation::rankings(&*retriever.live()?, data.store(), &split.queries, DEPTH, None, ranked)?;
    told?;
    Ok(measure(&rankings, split).means().collect())
}
