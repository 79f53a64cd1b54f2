"""Read and write LabelMe JSON; read LabelMe XML."""
