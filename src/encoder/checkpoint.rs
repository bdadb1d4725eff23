//! A checkpoint folder in Hugging Face layout, read and understood but not yet running.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::modules::{self, SentenceConfig};
use crate::onnx::{Activation, Head, Loss, PoolingMode, Task, Weights, bert, is_our_file};
use crate::settings::{Pooling, Similarity};

/// What a user sets over what the checkpoint says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of the checkpoint's pooling.
    pub pooling: Option<Pooling>,
    /// Instead of the checkpoint's similarity.
    pub similarity: Option<Similarity>,
    /// Instead of the checkpoint's length limit, in tokens.
    pub max_seq_length: Option<usize>,
    /// Instead of the checkpoint's join of title and text.
    pub separator: Option<String>,
    /// Instead of 1: pieces that a passage is cut into at most.
    pub chunks: Option<usize>,
}

/// A checkpoint: what it computes and how texts are prepared for it.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it lies.
    pub folder: PathBuf,
    /// The folder's name.
    pub name: String,
    /// `bert`, `roberta`, … as its config.json says.
    pub model_type: String,
    /// Its transformer.
    pub(super) transformer: Transformer,
    /// What follows the transformer.
    pub heads: Vec<Head>,
    /// Components of a vector.
    pub dimension: usize,
    /// Tokens, special ones included, after which a text is cut.
    pub max_seq_length: usize,
    /// Texts are brought to lower case before the tokenizer sees them.
    pub lower_case: bool,
    /// Put before each query.
    pub query_prompt: String,
    /// Put before each passage.
    pub passage_prompt: String,
    /// How its vectors are compared.
    pub similarity: Similarity,
    /// What joins title and text.
    pub separator: String,
    /// Pieces of `max_seq_length` tokens that a passage is cut into at most, each with a vector of its own.
    pub chunks: usize,
    pub(super) weights: Weights,
}

/// Where the transformer comes from.
#[derive(Debug)]
pub(super) enum Transformer {
    /// Written here from the configuration.
    Bert(bert::Config),
    /// The folder's own ONNX file.
    Onnx(PathBuf),
}

/// What `model_type` may be.
const FAMILIES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "camembert"];

/// The part of `config.json` that says how the rest is to be read.
#[derive(Debug, Deserialize)]
struct Family {
    #[serde(default)]
    model_type: String,
}

/// The part of `config.json` that is read.
#[derive(Debug, Deserialize)]
struct ModelConfig {
    model_type: String,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default)]
    pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default = "default_dropout")]
    hidden_dropout_prob: f32,
    #[serde(default = "default_dropout")]
    attention_probs_dropout_prob: f32,
}

/// That of transformers' `BertConfig`.
fn default_dropout() -> f32 {
    0.1
}

fn default_epsilon() -> f32 {
    1e-12
}

fn default_activation() -> String {
    "gelu".into()
}

/// The part of `tokenizer_config.json` that is read.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    /// Often the very large number by which transformers says "none".
    #[serde(default)]
    model_max_length: Option<f64>,
}

impl Checkpoint {
    /// Reads a folder.
    ///
    /// A folder with an `onnx/model.onnx` that anced did not write is served with that file as it is; any other needs
    /// `config.json`, `model.safetensors` and `tokenizer.json` of the BERT family.
    ///
    /// # Errors
    /// What is missing or not supported, with the file that says so.
    pub fn open(folder: &Path, overrides: &Overrides) -> Result<Self, Error> {
        if !folder.is_dir() {
            return Err(Error::FolderMissing(folder.to_path_buf()));
        }
        let (config_file, config) = config(folder)?;
        let own_onnx = folder.join("onnx/model.onnx");
        let own_onnx = (own_onnx.is_file() && !written_here(&own_onnx)?).then_some(own_onnx);

        let mut weights = Weights::new();
        let weights_file = folder.join("model.safetensors");
        let ance_head = is_ance_head(&config);
        let first_position = if is_roberta(&config) { config.pad_token_id.unwrap_or(1) + 1 } else { 0 };
        let transformer = match own_onnx {
            Some(path) => Transformer::Onnx(path),
            None => {
                if !weights_file.is_file() {
                    let reason = if folder.join("pytorch_model.bin").is_file() {
                        "no such file; `anced model convert` makes it of pytorch_model.bin"
                    } else {
                        "no such file; a checkpoint needs model.safetensors or onnx/model.onnx"
                    };
                    return Err(Error::checkpoint(weights_file, reason));
                }
                weights.add_file(&weights_file, "")?;
                Transformer::Bert(bert_config(&config, &config_file, &weights_file, &weights, first_position)?)
            }
        };

        let sentence: SentenceConfig = modules::read(folder, config.hidden_size, &mut weights)?;
        let is_sentence_transformers = sentence.heads.is_some();
        let mut heads = match sentence.heads {
            Some(heads) => heads,
            None if ance_head => ance_heads(&config, &weights, &weights_file)?,
            None => vec![Head::Pooling(PoolingMode::Mean)],
        };
        if let Some(pooling) = overrides.pooling {
            let mode = match pooling {
                Pooling::Cls => PoolingMode::Cls,
                Pooling::Mean => PoolingMode::Mean,
            };
            for head in heads.iter_mut().filter(|head| matches!(head, Head::Pooling(_))) {
                *head = Head::Pooling(mode);
            }
        }
        let dimension = heads.iter().fold(config.hidden_size, |size, head| match head {
            Head::Dense { output, .. } => *output,
            _ => size,
        });
        let similarity = overrides.similarity.or(sentence.similarity).unwrap_or(match heads.last() {
            Some(Head::Normalize) => Similarity::Dot,
            _ if ance_head && !is_sentence_transformers => Similarity::Dot,
            _ => Similarity::Cosine,
        });
        let limit = sequence_limit(folder, &config, first_position)?;
        let wanted = overrides.max_seq_length.or(sentence.max_seq_length);
        let max_seq_length = wanted.map_or(limit, |wanted| wanted.min(limit));
        if max_seq_length < 3 {
            return Err(Error::checkpoint(
                config_file,
                format!("max_seq_length {max_seq_length} leaves no room for text"),
            ));
        }
        let separator = match &overrides.separator {
            Some(separator) => separator.clone(),
            None if ance_head && !is_sentence_transformers => if is_roberta(&config) { "</s>" } else { "[SEP]" }.into(),
            None => " ".into(),
        };
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        Ok(Self {
            folder: folder.to_path_buf(),
            name: name.unwrap_or_else(|| "checkpoint".into()),
            model_type: config.model_type,
            transformer,
            heads,
            dimension,
            max_seq_length,
            lower_case: sentence.lower_case,
            query_prompt: sentence.query_prompt,
            passage_prompt: sentence.passage_prompt,
            similarity,
            separator,
            chunks: overrides.chunks.unwrap_or(1).max(1),
            weights,
        })
    }

    /// The number of weights, 0 where the transformer is an ONNX file.
    pub fn parameters(&self) -> usize {
        self.weights.parameters()
    }

    /// The ONNX file that is served as it is, where the folder brings one.
    pub fn own_onnx(&self) -> Option<&Path> {
        match &self.transformer {
            Transformer::Onnx(path) => Some(path),
            Transformer::Bert(_) => None,
        }
    }

    /// The checkpoint as an ONNX file with its weights inside, outputs `last_hidden_state` and `sentence_embedding`;
    /// none where the folder brings its own.
    ///
    /// # Errors
    /// A weight that is missing or of another shape.
    pub fn to_onnx(&self) -> Result<Option<Vec<u8>>, Error> {
        self.to_onnx_with(&self.weights)
    }

    /// As [`to_onnx`](Self::to_onnx), with the weights of another checkpoint of the same shape.
    pub(super) fn to_onnx_with(&self, weights: &Weights) -> Result<Option<Vec<u8>>, Error> {
        let Transformer::Bert(config) = &self.transformer else { return Ok(None) };
        let graph = bert::encoder_graph(config, &self.heads, self.dimension, bert::Variant::Plain, true);
        Ok(Some(graph.to_bytes_with(weights)?))
    }

    /// The checkpoint as something to train, with its weights. Vectors that are compared by cosine are normalised before
    /// the loss sees them.
    ///
    /// # Errors
    /// A transformer that is the folder's own ONNX file.
    pub fn task(&self, loss: Loss) -> Result<(Task, &Weights), Error> {
        let config = match &self.transformer {
            Transformer::Bert(config) => config.clone(),
            Transformer::Onnx(file) => {
                let reason = "the transformer is this ONNX file, which cannot be trained; use the folder without \
                              `onnx/` and with `model.safetensors`";
                return Err(Error::checkpoint(file, reason));
            }
        };
        let mut heads = self.heads.clone();
        if self.similarity == Similarity::Cosine && heads.last() != Some(&Head::Normalize) {
            heads.push(Head::Normalize);
        }
        Ok((Task { config, heads, loss }, &self.weights))
    }

    /// Title and text as one passage; no separator beside an empty part.
    pub fn passage(&self, title: &str, text: &str) -> String {
        match (title.is_empty(), text.is_empty()) {
            (true, _) => text.to_owned(),
            (_, true) => title.to_owned(),
            _ => format!("{title}{}{text}", self.separator),
        }
    }
}

/// The `model_type` of a checkpoint folder.
///
/// # Errors
/// A `config.json` that is missing, damaged or says something that is not supported.
pub(super) fn model_type(folder: &Path) -> Result<String, Error> {
    config(folder).map(|(_, config)| config.model_type)
}

fn config(folder: &Path) -> Result<(PathBuf, ModelConfig), Error> {
    let file = folder.join("config.json");
    if !file.is_file() {
        let reason = "no such file; name a checkpoint folder in Hugging Face layout (models/README.md)";
        return Err(Error::checkpoint(file, reason));
    }
    // First of all: another family has other fields.
    let Family { model_type } = read_json(&file)?;
    if !FAMILIES.contains(&model_type.as_str()) {
        let reason = format!("model_type `{model_type}` is not supported; supported are {}", FAMILIES.join(", "));
        return Err(Error::checkpoint(file, reason));
    }
    let config: ModelConfig = read_json(&file)?;
    check(&config, &file)?;
    Ok((file, config))
}

/// Reads a JSON file of a checkpoint.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let text = std::fs::read(file).map_err(|error| Error::checkpoint(file, error))?;
    serde_json::from_slice(&text).map_err(|error| Error::checkpoint(file, error))
}

/// As [`read_json`], none where there is no such file.
pub(super) fn read_json_if_there<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Error> {
    if file.is_file() { read_json(file).map(Some) } else { Ok(None) }
}

fn written_here(file: &Path) -> Result<bool, Error> {
    let map = crate::system::map_file(file).map_err(|error| Error::checkpoint(file, error))?;
    Ok(is_our_file(&map))
}

fn is_roberta(config: &ModelConfig) -> bool {
    matches!(config.model_type.as_str(), "roberta" | "xlm-roberta" | "camembert")
}

fn is_ance_head(config: &ModelConfig) -> bool {
    config.architectures.iter().flatten().any(|name| name.starts_with("RobertaDot"))
}

fn check(config: &ModelConfig, file: &Path) -> Result<(), Error> {
    if config.num_attention_heads == 0
        || !config.hidden_size.is_multiple_of(config.num_attention_heads)
        || config.hidden_size == 0
    {
        let reason = format!(
            "hidden_size {} is no multiple of num_attention_heads {}",
            config.hidden_size, config.num_attention_heads
        );
        return Err(Error::checkpoint(file, reason));
    }
    for (name, share) in [
        ("hidden_dropout_prob", config.hidden_dropout_prob),
        ("attention_probs_dropout_prob", config.attention_probs_dropout_prob),
    ] {
        if !(0.0..1.0).contains(&share) {
            return Err(Error::checkpoint(file, format!("{name} is {share}; it must be from 0 up to below 1")));
        }
    }
    match config.position_embedding_type.as_deref() {
        None | Some("absolute") => Ok(()),
        Some(other) => {
            Err(Error::checkpoint(file, format!("position_embedding_type `{other}` is not supported; absolute is")))
        }
    }
}

fn bert_config(
    config: &ModelConfig,
    config_file: &Path,
    weights_file: &Path,
    weights: &Weights,
    first_position: usize,
) -> Result<bert::Config, Error> {
    let table = "embeddings.word_embeddings.weight";
    let prefix = ["", "bert.", "roberta.", "ance_encoder.roberta.", "0.auto_model."]
        .into_iter()
        .find(|prefix| weights.contains(&format!("{prefix}{table}")))
        .ok_or_else(|| Error::checkpoint(weights_file, format!("no tensor `{table}` under any known prefix")))?;
    let activation = Activation::from_name(&config.hidden_act).ok_or_else(|| {
        Error::checkpoint(config_file, format!("hidden_act `{}` is not supported", config.hidden_act))
    })?;
    Ok(bert::Config {
        vocabulary: config.vocab_size,
        hidden: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        intermediate: config.intermediate_size,
        positions: config.max_position_embeddings,
        first_position,
        token_types: config.type_vocab_size,
        epsilon: config.layer_norm_eps,
        activation,
        prefix: prefix.into(),
        dropout: bert::Dropout { hidden: config.hidden_dropout_prob, attention: config.attention_probs_dropout_prob },
    })
}

/// The head of the ANCE authors' `RobertaDot_NLL_LN`: first token, linear, layer normalisation.
fn ance_heads(config: &ModelConfig, weights: &Weights, weights_file: &Path) -> Result<Vec<Head>, Error> {
    let prefix = if weights.contains("ance_encoder.embeddingHead.weight") { "ance_encoder." } else { "" };
    let name = format!("{prefix}embeddingHead");
    let Some([output, input]) = weights.shape(&format!("{name}.weight")) else {
        return Err(Error::checkpoint(weights_file, format!("no matrix `{name}.weight`")));
    };
    if *input != config.hidden_size {
        return Err(Error::checkpoint(
            weights_file,
            format!("`{name}.weight` takes {input} components, not {}", config.hidden_size),
        ));
    }
    let bias = weights.contains(&format!("{name}.bias"));
    Ok(vec![
        Head::Pooling(PoolingMode::Cls),
        Head::Dense { name, input: *input, output: *output, bias, activation: Activation::Identity },
        Head::LayerNorm { name: format!("{prefix}norm"), size: *output, epsilon: 1e-5 },
    ])
}

/// The most tokens that the model and its tokenizer take.
fn sequence_limit(folder: &Path, config: &ModelConfig, first_position: usize) -> Result<usize, Error> {
    let positions = config.max_position_embeddings.saturating_sub(first_position);
    let tokenizer: TokenizerConfig = read_json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    Ok(match tokenizer.model_max_length {
        Some(length) if length >= 1.0 && length < positions as f64 => length as usize,
        _ => positions,
    })
}
