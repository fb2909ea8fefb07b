"""What mappers of attention share: heads, pages, masks, tiles, the stream of an online softmax."""
