"""A tiny random BERT as PyTorch's two exporters write it, with the gradients that PyTorch computes for it.

Writes legacy.onnx, legacy-14.onnx, dynamo.onnx and, beside each, a .safetensors file of the same name into
tests/fixtures/export/; tests/fixtures/README.md says what stands in them. Prints the operators of each graph and fails where ONNX Runtime
computes other outputs than PyTorch or a parameter is no initializer of the graph. In a virtual environment:

    pip install torch transformers onnx onnxscript onnxruntime safetensors
    benches/compare/export.py
"""

import io
import json
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "export"
SEED = 20261122
LENGTHS = [11, 7, 4]
TOLERANCE = 1e-5
SHAPE = dict(
    vocab_size=64,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
)
INPUTS = ["input_ids", "attention_mask"]
OUTPUTS = ["last_hidden_state", "pooler_output"]
AXES = {0: "batch", 1: "sequence"}


class Export(nn.Module):
    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state, output.pooler_output


def tiny_bert(attention: str) -> BertModel:
    """The same weights for either attention; none is 0 or 1 throughout, so that each can be told by its values."""
    model = BertModel(BertConfig(**SHAPE, attn_implementation=attention), add_pooling_layer=True).eval()
    chance = torch.Generator().manual_seed(SEED)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=chance)
        weight.data = 1 + 0.1 * noise if name.endswith("LayerNorm.weight") else 0.2 * noise
    return model


def batch() -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(SEED + 1)
    mask = torch.tensor([[1] * length + [0] * (LENGTHS[0] - length) for length in LENGTHS])
    ids = torch.randint(1, SHAPE["vocab_size"], mask.shape, generator=chance) * mask
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "weight_hidden": torch.randn([*mask.shape, SHAPE["hidden_size"]], generator=chance) * mask.unsqueeze(-1),
        "weight_pooled": torch.randn([len(mask), SHAPE["hidden_size"]], generator=chance),
    }


def export_legacy(model: nn.Module, inputs: tuple, opset: int) -> onnx.ModelProto:
    file = io.BytesIO()
    axes = {name: AXES for name in [*INPUTS, OUTPUTS[0]]} | {OUTPUTS[1]: {0: "batch"}}
    torch.onnx.export(
        model,
        inputs,
        file,
        dynamo=False,
        opset_version=opset,
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_axes=axes,
    )
    return onnx.load_from_string(file.getvalue())


def export_dynamo(model: nn.Module, inputs: tuple) -> onnx.ModelProto:
    axes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("sequence", max=32)}
    program = torch.onnx.export(
        model,
        inputs,
        dynamo=True,
        opset_version=20,
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes={name: axes for name in INPUTS},
        external_data=False,
        verbose=False,
    )
    return program.model_proto


def strip(model: onnx.ModelProto) -> None:
    """Drops the stack traces that the exporter keeps: most of the file, and full of one machine's paths."""
    graph = model.graph
    for part in [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def expected(bert: BertModel, given: dict[str, Tensor]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """In double precision, rounded: outputs and loss; the gradient of every parameter."""
    bert = bert.double()
    outputs = dict(zip(OUTPUTS, Export(bert)(given["input_ids"], given["attention_mask"]), strict=True))
    loss = (outputs["last_hidden_state"] * given["weight_hidden"].double()).sum()
    loss = loss + (outputs["pooler_output"] * given["weight_pooled"].double()).sum()
    loss.backward()
    values = {name: value.detach().float().numpy() for name, value in (outputs | {"loss": loss}).items()}
    return values, {name: weight.grad.float().numpy() for name, weight in bert.named_parameters()}


def parameters(graph: onnx.GraphProto, bert: BertModel) -> dict[str, tuple[str, bool]]:
    """Initializer -> the parameter that it holds, and whether it lies there transposed."""
    weights = {name: weight.detach().numpy() for name, weight in bert.named_parameters()}
    found = {}
    for initializer in graph.initializer:
        held = onnx.numpy_helper.to_array(initializer)
        for name, weight in weights.items():
            for transposed in (False, True):
                if np.array_equal(held, weight.T if transposed else weight) and initializer.name not in found:
                    found[initializer.name] = (name, transposed)
    names = [name for name, _ in found.values()]
    if sorted(names) != sorted(weights):
        raise SystemExit(f"not in the graph exactly once: {set(weights) ^ set(names) or names}")
    return found


def check(file: Path, given: dict[str, Tensor], values: dict[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    got = session.run(OUTPUTS, {name: given[name].numpy() for name in INPUTS})
    difference = max(float(abs(one - values[name]).max()) for name, one in zip(OUTPUTS, got, strict=True))
    if difference > TOLERANCE:
        raise SystemExit(f"{file}: ONNX Runtime is {difference:.1e} off PyTorch")
    # Other sizes than those of the export must run too.
    session.run(OUTPUTS, {name: given[name].numpy()[:2, :5] for name in INPUTS})
    return difference


def write(name: str, attention: str, export) -> None:
    bert, given = tiny_bert(attention), batch()
    # Other sizes than the fixture's, so that a size that the exporter wrote down would be noticed.
    inputs = (torch.ones(2, 6, dtype=torch.long), torch.tensor([[1] * 6, [1] * 4 + [0] * 2]))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = export(Export(bert).eval(), inputs)
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    held = parameters(model.graph, bert)
    values, gradients = expected(bert, given)

    tensors = {key: value.numpy() for key, value in given.items()} | values
    for initializer, (parameter, transposed) in held.items():
        gradient = gradients[parameter]
        tensors[f"grad.{initializer}"] = np.ascontiguousarray(gradient.T if transposed else gradient)
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.onnx"
    file.write_bytes(model.SerializeToString())
    # One key, since the order of several is not the same each time.
    save_file(tensors, file.with_suffix(".safetensors"), metadata={"parameters": json.dumps(held)})

    opsets = ", ".join(f"{one.domain or 'ai.onnx'} {one.version}" for one in model.opset_import)
    print(f"{file.name}: {opsets}, {file.stat().st_size} bytes, {check(file, given, values):.1e} off PyTorch")
    counts = Counter(f"{node.domain}{'.' * bool(node.domain)}{node.op_type}" for node in model.graph.node)
    print("  " + ", ".join(f"{operator} {count}" for operator, count in sorted(counts.items())))
    rest = [one for one in model.graph.initializer if one.name not in held]
    others = Counter(f"{onnx.TensorProto.DataType.Name(one.data_type)}{list(one.dims)}" for one in rest)
    turned = sum(transposed for _, transposed in held.values())
    print(f"  {len(held)} parameters, {turned} of them transposed; other initializers: {dict(others)}")


def main() -> None:
    write("legacy", "eager", partial(export_legacy, opset=18))
    # Before opset 17 a layer norm is written out in ReduceMean, Sub, Pow, Add, Sqrt, Div and Mul.
    write("legacy-14", "eager", partial(export_legacy, opset=14))
    write("dynamo", "sdpa", export_dynamo)


if __name__ == "__main__":
    main()
