"""The models room: from what people write after `--model` to an MLX folder on this machine.

`sources` reads the words, `fetch` makes the folder, `folder` looks whether it is whole, `registry` lists and
removes. Nothing here imports MLX; `gguf` turns a file's tensors over with numpy, in a child process.
"""
