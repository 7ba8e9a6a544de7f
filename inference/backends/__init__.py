"""What computes the embeddings of pictures: image towers, and the choice among them."""
