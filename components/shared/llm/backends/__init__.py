"""Where a request to a language model is answered: endpoints, engines and models in this process."""
