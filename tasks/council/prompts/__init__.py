"""What a model is asked in each stage, with everything given between delimiters."""
