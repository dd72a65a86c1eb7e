"""From a valid request to pixels: seeds and latents to model inputs, interpolation, batching and admission control."""
