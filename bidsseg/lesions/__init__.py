"""From a lesion mask and a segmentation to facts about lesions; knows no BIDS."""
