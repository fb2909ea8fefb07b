"""Evidence for every claim the project makes: one package per claim, truth beside the script."""
