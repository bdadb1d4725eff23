//! The files that sentence-transformers puts beside a model: modules, lengths, prompts.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::Error;
use super::checkpoint::{read_json, read_json_if_there};
use crate::onnx::{Activation, Head, PoolingMode, Weights};
use crate::settings::Similarity;

/// What the sentence-transformers files say; defaults where there are none.
#[derive(Debug, Default)]
pub(super) struct SentenceConfig {
    /// The modules after the transformer; none without `modules.json`.
    pub(super) heads: Option<Vec<Head>>,
    pub(super) max_seq_length: Option<usize>,
    pub(super) lower_case: bool,
    pub(super) query_prompt: String,
    pub(super) passage_prompt: String,
    pub(super) similarity: Option<Similarity>,
}

#[derive(Debug, Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    r#type: String,
}

#[derive(Debug, Default, Deserialize)]
struct TransformerConfig {
    #[serde(default)]
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Debug, Default, Deserialize)]
struct PromptConfig {
    #[serde(default)]
    prompts: HashMap<String, Option<String>>,
    #[serde(default)]
    default_prompt_name: Option<String>,
    #[serde(default)]
    similarity_fn_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    /// Newer releases name the mode instead.
    #[serde(default)]
    pooling_mode: Option<String>,
    #[serde(default = "yes")]
    include_prompt: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default = "tanh")]
    activation_function: String,
}

fn tanh() -> String {
    "torch.nn.modules.activation.Tanh".into()
}

#[derive(Debug, Deserialize)]
struct LayerNormConfig {
    dimension: usize,
}

/// Reads the files of `folder` and adds the modules' weights under `{path}/`.
pub(super) fn read(folder: &Path, hidden: usize, weights: &mut Weights) -> Result<SentenceConfig, Error> {
    let transformer: TransformerConfig =
        read_json_if_there(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
    let prompts_file = folder.join("config_sentence_transformers.json");
    let prompts: PromptConfig = read_json_if_there(&prompts_file)?.unwrap_or_default();
    let prompt = |names: &[&str]| {
        let named = names.iter().find_map(|name| prompts.prompts.get(*name));
        let default = prompts.default_prompt_name.as_ref().and_then(|name| prompts.prompts.get(name));
        named.or(default).cloned().flatten().unwrap_or_default()
    };
    let similarity = match prompts.similarity_fn_name.as_deref() {
        None => None,
        Some("cosine") => Some(Similarity::Cosine),
        Some("dot") => Some(Similarity::Dot),
        Some(other) => {
            return Err(Error::checkpoint(
                prompts_file,
                format!("similarity_fn_name `{other}` is not supported; cosine and dot are"),
            ));
        }
    };
    let mut config = SentenceConfig {
        heads: None,
        max_seq_length: transformer.max_seq_length,
        lower_case: transformer.do_lower_case,
        query_prompt: prompt(&["query"]),
        passage_prompt: prompt(&["document", "passage"]),
        similarity,
    };
    let modules_file = folder.join("modules.json");
    let Some(modules) = read_json_if_there::<Vec<Module>>(&modules_file)? else { return Ok(config) };
    let mut heads = Vec::new();
    let mut size = hidden;
    for module in modules {
        let kind = module.r#type.rsplit('.').next().unwrap_or_default();
        let place = folder.join(&module.path);
        let head = match kind {
            "Transformer" if module.path.is_empty() => continue,
            "Transformer" => {
                let reason = format!("the transformer lies in `{}`; only the folder itself is supported", module.path);
                return Err(Error::checkpoint(modules_file, reason));
            }
            "Dropout" => continue,
            "Pooling" => {
                let file = place.join("config.json");
                let pooling: PoolingConfig = read_json(&file)?;
                let has_prompt = !(config.query_prompt.is_empty() && config.passage_prompt.is_empty());
                if !pooling.include_prompt && has_prompt {
                    return Err(Error::checkpoint(file, "include_prompt false is not supported"));
                }
                Head::Pooling(pooling.mode().map_err(|reason| Error::checkpoint(file, reason))?)
            }
            "Dense" => {
                let file = place.join("config.json");
                let dense: DenseConfig = read_json(&file)?;
                let activation = Activation::from_name(&dense.activation_function).ok_or_else(|| {
                    Error::checkpoint(
                        &file,
                        format!("activation_function `{}` is not supported", dense.activation_function),
                    )
                })?;
                if dense.in_features != size {
                    return Err(Error::checkpoint(
                        file,
                        format!("in_features {} does not follow {size}", dense.in_features),
                    ));
                }
                weights.add_file(&place.join("model.safetensors"), &format!("{}/", module.path))?;
                size = dense.out_features;
                let name = format!("{}/linear", module.path);
                Head::Dense { name, input: dense.in_features, output: size, bias: dense.bias, activation }
            }
            "LayerNorm" => {
                let file = place.join("config.json");
                let norm: LayerNormConfig = read_json(&file)?;
                if norm.dimension != size {
                    return Err(Error::checkpoint(
                        file,
                        format!("dimension {} does not follow {size}", norm.dimension),
                    ));
                }
                weights.add_file(&place.join("model.safetensors"), &format!("{}/", module.path))?;
                // torch.nn.LayerNorm's default, which the module does not store.
                Head::LayerNorm { name: format!("{}/norm", module.path), size, epsilon: 1e-5 }
            }
            "Normalize" => Head::Normalize,
            other => {
                let reason = format!(
                    "module `{other}` is not supported; Transformer, Pooling, Dense, LayerNorm, Normalize and Dropout are"
                );
                return Err(Error::checkpoint(modules_file, reason));
            }
        };
        heads.push(head);
    }
    if !matches!(heads.first(), Some(Head::Pooling(_)))
        || heads.iter().filter(|head| matches!(head, Head::Pooling(_))).count() != 1
    {
        return Err(Error::checkpoint(modules_file, "one Pooling module must follow the Transformer"));
    }
    config.heads = Some(heads);
    Ok(config)
}

impl PoolingConfig {
    fn mode(&self) -> Result<PoolingMode, String> {
        let flags = [
            ("cls", self.pooling_mode_cls_token, Some(PoolingMode::Cls)),
            ("mean", self.pooling_mode_mean_tokens, Some(PoolingMode::Mean)),
            ("max", self.pooling_mode_max_tokens, Some(PoolingMode::Max)),
            ("mean_sqrt_len_tokens", self.pooling_mode_mean_sqrt_len_tokens, None),
            ("weightedmean", self.pooling_mode_weightedmean_tokens, None),
            ("lasttoken", self.pooling_mode_lasttoken, None),
        ];
        let chosen: Vec<_> = match &self.pooling_mode {
            Some(name) => flags.iter().filter(|(flag, ..)| flag == name).collect(),
            None => flags.iter().filter(|(_, on, _)| *on).collect(),
        };
        match chosen.as_slice() {
            [(_, _, Some(mode))] => Ok(*mode),
            [(name, ..)] => Err(format!("pooling mode `{name}` is not supported; cls, mean and max are")),
            [] => Err("no pooling mode that is known".into()),
            _ => Err("several pooling modes at once are not supported".into()),
        }
    }
}
