"""Loading models and tokenizers, and the one chat encoding of training and evaluation."""
