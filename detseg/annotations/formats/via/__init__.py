"""Read and write VGG Image Annotator (VIA) JSON."""
