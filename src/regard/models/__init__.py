"""Opening models: native (BERT's family, packed), or any of the Hugging Face hub by transformers."""
