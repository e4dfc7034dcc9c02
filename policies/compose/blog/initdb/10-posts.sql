create table posts (id serial primary key, title text not null);
insert into posts (title) values ('first'), ('second');
