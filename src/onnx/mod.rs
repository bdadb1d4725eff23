//! ONNX graphs as values: builder, BERT-family graphs, sessions.
