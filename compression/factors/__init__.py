"""Low rank: linears and embeddings as two thin factors, where that is faster."""
