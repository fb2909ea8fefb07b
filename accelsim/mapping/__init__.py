"""What every mapper needs: the registry, the lowering context, placement and tile choice."""
