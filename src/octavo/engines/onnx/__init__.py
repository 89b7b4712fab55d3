"""ONNX: `graph` rewrites to QDQ form, `engine` writes it and runs it in ONNX Runtime."""
