//! What a copy does with images and artifacts of unusual shape.
