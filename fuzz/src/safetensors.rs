//! A safetensors file, as weights of a checkpoint and as saved vectors.

use anced::index::SavedVectors;
use anced::onnx::Weights;
use safetensors::SafeTensors;

use super::scratch;

pub fn run(input: &[u8]) {
    let folder = scratch();
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, input).unwrap();
    let mut weights = Weights::new();
    let read = weights.add_file(&file, "prefix.");
    let sound = SafeTensors::deserialize(input);
    assert_eq!(read.is_ok(), sound.is_ok(), "{read:?}, {:?}", sound.as_ref().err());
    let Ok(tensors) = sound else { return };
    let mut parameters = 0;
    for (name, view) in tensors.iter() {
        let name = format!("prefix.{name}");
        assert_eq!(weights.shape(&name), Some(view.shape()));
        let count: usize = view.shape().iter().product();
        parameters += count;
        if let Ok(tensor) = weights.tensor(&name, view.shape()) {
            assert_eq!(tensor.data.len(), count);
            assert!(tensor.data.iter().all(|value| value.is_finite()));
        }
        assert!(weights.tensor(&name, &[view.shape(), &[2]].concat()).is_err());
    }
    assert_eq!(weights.parameters(), parameters);
    if let Ok(Some(saved)) = SavedVectors::open(&file, None) {
        let sequences = tensors.tensor("sequences").unwrap();
        for key in sequences.data().as_chunks::<8>().0 {
            let vector = saved.get(u64::from_le_bytes(*key));
            assert!(vector.is_none_or(|vector| vector.len() == saved.dimension()));
        }
    }
}
