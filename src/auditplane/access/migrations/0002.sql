-- An account's keys are found without those of the others.
CREATE INDEX api_key_of_account ON api_key (account, id);
