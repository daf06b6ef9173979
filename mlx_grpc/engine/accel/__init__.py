"""What is computed by code of ours instead of MLX's or mlx_lm's, for one kind of device each."""
